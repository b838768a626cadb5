// Package reports shows a run: it makes every file of a run's output folder
// from a result and from nothing else, so that each can be made again from
// result.json by [Write].
//
//   - [HTML]: report.html, one self-contained page for people
//   - plots.All: *.png, the page's figures
//   - [JUnit]: junit.xml, for the test view of a pipeline
//   - [Summary]: summary.md, for a pipeline's job page
//   - [Percentiles]: latency-SYSTEM.hgrm, for HdrHistogram's plotters
//   - [Timeline]: timeline.csv, for spreadsheets
//   - [Text] and [Line]: the verdicts, for a terminal
//
// All show the same words: a verdict is never told by a colour alone, and a
// figure without a sample is a dash with its reason.
package reports
