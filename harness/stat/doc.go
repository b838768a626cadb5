// Package stat holds the arithmetic behind verdicts: confidence bounds on
// shares, quantiles, means and slopes, and the sample sizes they need. It
// knows nothing about HTTP, reads no clock and draws no random number, so the
// same sample always gives the same bound.
//
// All bounds are one-sided at the stated confidence: a lower and an upper
// bound taken together enclose the truth with confidence 2c − 1. A bound that
// no sample supports is the widest possible one or is reported as absent;
// none of the functions returns NaN.
//
// Sources:
//   - Clopper & Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934)
//   - Kish, Survey Sampling (1965); Korn & Graubard, Confidence intervals for
//     proportions with small expected number of positive counts, Survey Methodology 24 (1998)
//   - Hahn & Meeker, Statistical Intervals (1991), section 5.2
//   - Meketon & Schmeiser, Overlapping batch means: something for nothing?, Winter Simulation Conference (1984)
//   - Scott & Knott, A cluster analysis method for grouping means in the analysis of variance, Biometrics 30 (1974)
//   - Kendall, Note on bias in the estimation of autocorrelation; Marriott & Pope, Bias in the estimation of autocorrelations, Biometrika 41 (1954)
//   - Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024);
//     Howard, Ramdas, McAuliffe & Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49 (2021)
//   - Student, The probable error of a mean, Biometrika 6 (1908); Welch, The generalization of
//     'Student's' problem when several different population variances are involved, Biometrika 34 (1947)
//   - Hodges & Lehmann, Estimates of location based on rank tests, Annals of Mathematical Statistics 34 (1963)
//   - Sun, Robust trend inference with series variance estimator and testing-optimal
//     smoothing parameter, Journal of Econometrics 164 (2011)
//   - Bloom, Minimum detectable effects, Evaluation Review 19 (1995)
package stat
