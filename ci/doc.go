// Package ci holds what spans both halves of the house: the test that keeps
// the import rules, and the end-to-end tests that run the real binaries.
package ci
