"""`python -m privdiff_infer` is `privdiff`."""

from privdiff_infer.cli import main

if __name__ == "__main__":
    main()
