"""DICOM beyond reading: confidentiality, pseudonyms, derived objects, DICOMweb."""
