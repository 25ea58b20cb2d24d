"""What a training log shows: following it, keeping it in bounded memory, drawing it. Neither torch nor Tk."""
