//go:build !race

package ci

var raceFlags []string
