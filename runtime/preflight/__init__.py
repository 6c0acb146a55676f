"""Before the first expensive step of a run: what it will need, looked at and tried, all failures at once.

Expensive are trainings, texts and completions of a model, benchmarks, and judges that are asked over the network. Only
what the steps still to run need is looked at: a bundle that asks no model is not asked for a GPU. Numbers alone are not
believed: the space on the disk is reserved, one token is sampled, and each judge answers once.

R1901 a GPU's memory is short; R1902 a large model and no GPU; R1903 a GPU does not answer; R1904 a GPU that torch does not
use; R1905 the main memory is short; R1910 no room on a disk; R1911 a limit on the size of a file; R1912 a folder that
cannot be written; R1915 a package is missing; R1916 a package is too old; R1917 other versions than the trainings before;
R1920 a finished step's file is not as recorded; R1921 the model cannot be fetched; R1922 an input is not the registered
one; R1925 a model that was tried gave no token; R1926 a judge that was tried gave no score; R1930 an unknown check.
"""
