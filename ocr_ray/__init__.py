"""PP-OCRv3 text detection in PyTorch on Ray: teacher by DML, students by CML under a sweep, the best one extracted."""
