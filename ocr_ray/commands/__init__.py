"""The commands of `ocr-ray`, by what they are about: each makes one call and says what came of it."""
