"""Commands for devices and files: made, seen, changed; disks as images in and out, and what is left of damaged ones."""
