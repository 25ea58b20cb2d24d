"""Parts of scripts/campaign.py: each makes faults of one kind and judges what the project did about them."""
