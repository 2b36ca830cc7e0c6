"""Names of the guidance branches of a step: with guidance, and without it."""

ONE_CALL = (["0"], ["0"])
TWO_CALLS = (["cond", "uncond"], ["cond"])
UNNAMED = (["0", "1"], ["0"])
JOINT = (["cond_uncond"], ["cond_uncond"])
GUIDER = (["pred_cond", "pred_uncond"], ["pred_cond"])
