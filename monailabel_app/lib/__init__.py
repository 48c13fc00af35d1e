"""What the app is made of; `main.py` beside this folder is what MONAI Label loads."""
