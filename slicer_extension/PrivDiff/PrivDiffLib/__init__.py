"""Parts of the module PrivDiff: workflow without Qt, the scene, the sections of its panel."""
