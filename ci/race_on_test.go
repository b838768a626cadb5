//go:build race

package ci

// raceFlags build the harness as the tests are built: what runs its loops is
// the program.
var raceFlags = []string{"-race"}
