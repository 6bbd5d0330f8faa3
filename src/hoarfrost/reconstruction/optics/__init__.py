"""What microscope and ice did to the images: defocus, astigmatism, aberrations, fitted by posteriors over poses."""
