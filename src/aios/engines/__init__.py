"""How a step's gradients come about and are applied: here, by DDP, by DeepSpeed; decides no LR, imports no trainer."""
