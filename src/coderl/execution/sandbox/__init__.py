"""What a program runs in: the zygote that forks children, and the layers around them."""
