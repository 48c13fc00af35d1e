"""An attacker who prepares what another one looks at."""

from __future__ import annotations

from privdiff_training.evaluation.attacks.attack import Attack, Known


class ByAnother:
    """What is that of who looks.

    Attributes
    ----------
    then
        Who looks.
    """

    then: Attack
    needs_groups = False

    @property
    def is_learned(self) -> bool:
        """Whether who looks learns anything."""
        return self.then.is_learned

    @property
    def learns_from_copies(self) -> bool:
        """Whether who looks does."""
        return self.then.learns_from_copies

    def trained_on(self, known: Known) -> str:
        """Say what who looks was trained on."""
        return self.then.trained_on(known)
