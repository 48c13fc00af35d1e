"""Slicer module: redraws chest X-rays on a PrivDiff server, compares, approves and publishes."""

import os

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class PrivDiff(ScriptedLoadableModule):
    """What the module says of itself."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("PrivDiff")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Utilities")]
        self.parent.dependencies = ["Volumes", "SubjectHierarchy", "Markups", "Segmentations"]
        self.parent.contributors = [_("The PrivDiff-Net developers")]
        self.parent.helpText = _(
            "Takes the person out of chest X-rays and leaves the findings in. The images that you "
            "check are sent to the server whose address you give, and redrawn there. You compare, "
            "approve, and publish. Not for diagnosis; redrawn images are not anonymous in the "
            "sense of a law."
        )
        self.parent.acknowledgementText = _(
            "An independent implementation of: Y. Akhter, M. Dosi, M. Vatsa, R. Singh. Hide "
            "Identity, Preserve Pathology: Diffusion-Based Anonymization for Chest X-rays. "
            "PMLR 317:27-36, 2026."
        )
        # The module Sample Data is there once the application has started.
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the sample images where users of Slicer look for them: in the module Sample Data."""
    try:
        import SampleData
    except ImportError:
        return  # a Slicer that was started, or built, without that module
    from PrivDiffLib.Samples import sampleFiles

    files = sampleFiles(_resource("Samples"))
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("PrivDiff"),
        sampleName=_("Chest radiographs of nobody"),
        uris=[path.as_uri() for path in files],
        fileNames=[path.name for path in files],
        nodeNames=[path.stem for path in files],
        customDownloader=loadSampleData,
        thumbnailFileName=_resource("Icons", "PrivDiffSamples.png"),
    )


def loadSampleData(source=None):
    """Put the sample images into the scene, as samples; return their volumes."""
    from PrivDiffLib.Samples import addSamples

    return addSamples(_resource("Samples"))


def _resource(*names):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "Resources", *names)


class PrivDiffWidget(ScriptedLoadableModuleWidget):
    """Loads the panel and hands the application to it."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.panel = None

    def setup(self):
        """Build the panel."""
        from PrivDiffLib.Originals import SlicerDicomDatabase
        from PrivDiffLib.Panel import Panel
        from PrivDiffLib.privdiff_client import PrivDiffClient

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/PrivDiff.ui"))
        self.layout.addWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.panel = Panel(
            slicer.util.childWidgetVariables(widget),
            slicer.mrmlScene,
            slicer.app.layoutManager(),
            slicer.app.userSettings(),
            SlicerDicomDatabase(),
            slicer.app.coreIOManager(),
            PrivDiffClient,
            self.resourcePath("Samples"),
        )

    def enter(self):
        """Let the keys of the panel work."""
        if self.panel is not None:
            self.panel.enter(True)

    def exit(self):
        """Let them rest."""
        if self.panel is not None:
            self.panel.enter(False)

    def cleanup(self):
        """Stop threads, timer and observers."""
        if self.panel is not None:
            self.panel.close()
            self.panel = None


class PrivDiffLogic(ScriptedLoadableModuleLogic):
    """What scripts can use without the panel."""

    def addSamples(self):
        """Put the sample images into the scene; return their volumes."""
        return loadSampleData()


class PrivDiffTest(ScriptedLoadableModuleTest):
    """The self test: runs inside Slicer with Reload and Test, and sends nothing anywhere."""

    def runTest(self):
        """Run all tests."""
        slicer.mrmlScene.Clear(0)
        self.test_samplesAreReadyToBeSent()
        self.test_resultLiesOverItsOriginal()
        slicer.mrmlScene.Clear(0)

    def test_samplesAreReadyToBeSent(self):
        """Sample images load, are listed, and become files without names."""
        from PrivDiffLib.Originals import SlicerDicomDatabase, readOriginal
        from PrivDiffLib.SceneImages import images

        self.delayDisplay(_("Sample images"))
        volumes = PrivDiffLogic().addSamples()
        self.assertGreater(len(volumes), 0)
        self.assertEqual(images(slicer.mrmlScene), volumes)
        original = readOriginal(volumes[0], SlicerDicomDatabase())
        self.assertTrue(original.file().startswith(b"NRRD0004\ntype: "))
        self.assertNotIn(b"Sample", original.file())

    def test_resultLiesOverItsOriginal(self):
        """A file that a server could send lies over its original and is shown beside it."""
        import hashlib

        from PrivDiffLib.Cases import Case
        from PrivDiffLib.ComparisonViews import ComparisonViews, Mode
        from PrivDiffLib.Originals import SlicerDicomDatabase, readOriginal
        from PrivDiffLib.privdiff_client import Download
        from PrivDiffLib.SceneImages import SceneImages

        self.delayDisplay(_("Comparison"))
        volume = PrivDiffLogic().addSamples()[0]
        case = Case("sample", volumeID=volume.GetID())
        case.original = readOriginal(volume, SlicerDicomDatabase())
        content = case.original.file()
        case.result = Download(content, hashlib.sha256(content).hexdigest(), "image/x-nrrd")
        kept = SceneImages(slicer.mrmlScene)
        result = kept.addResult(case)
        bounds = [[0.0] * 6, [0.0] * 6]
        volume.GetRASBounds(bounds[0])
        result.GetRASBounds(bounds[1])
        self.assertEqual(bounds[0], bounds[1])
        views = ComparisonViews(slicer.app.layoutManager(), kept)
        for mode in Mode:
            views.show(case, mode, 0.5)
        self.assertTrue(views.isOpen)
        views.close()
