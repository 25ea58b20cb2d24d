"""How one optimizer step's gradients come about and are applied: in this process, by DDP, by DeepSpeed."""
