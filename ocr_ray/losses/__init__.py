"""One formula a file, and the sums that the recipes minimise."""
