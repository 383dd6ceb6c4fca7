"""Arrays from anything that holds values in an order, and the layout of images in them."""
