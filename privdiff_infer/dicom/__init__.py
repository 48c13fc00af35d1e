"""DICOM beyond reading: confidentiality, derived objects, DICOMweb."""
