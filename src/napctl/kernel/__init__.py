"""Linux as it is: one module per interface, typed values in and out. No policy, no printing, no retries."""
