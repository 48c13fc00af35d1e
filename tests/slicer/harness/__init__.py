"""Stand-ins for what 3D Slicer has and no package ships: PythonQt, ctk, qMRML, the application.

MRML, its logics, slice views' contents and Qt are the real ones; see docs/how-to/slicer.md for what
this proves and what it does not.
"""
