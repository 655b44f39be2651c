"""How formulations are compared: the series of blocks, its statistics, the table and the chart."""
