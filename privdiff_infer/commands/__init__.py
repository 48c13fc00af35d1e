"""The commands of `privdiff`, one subject a module; `cli` puts them together."""
