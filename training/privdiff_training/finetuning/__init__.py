"""`privdiff finetune`: adapts a bundle to a cohort and shows what came of it."""
