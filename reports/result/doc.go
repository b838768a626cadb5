// Package result holds the types of result.json: the contract between the
// harness that measures, the reports that show, and the scripts of users. A
// field is never renamed or given another unit within one [Schema]; new ones
// may appear.
package result
