"""`python -m ocr_ray` is `ocr-ray`."""

from ocr_ray.cli import main

if __name__ == "__main__":
    main()
