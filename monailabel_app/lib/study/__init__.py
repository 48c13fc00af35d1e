"""Reader studies: blinded pairs, one answer per finding, agreement with intervals."""
