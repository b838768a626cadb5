// Package scenarios holds the scenarios that ship with Phasegate, one per
// phase of the rollout plan and those for comparisons, and the JSON Schema of
// their grammar. It is files
// only; harness/scenario reads them.
package scenarios

import (
	"embed"
	"slices"
	"strings"
)

//go:embed *.yaml schema.json
var files embed.FS

// Names returns the names of the embedded scenarios, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic("scenarios: " + err.Error()) // embedded: can't happen
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Read returns the source of an embedded scenario, and false if there is none
// of that name.
func Read(name string) ([]byte, bool) {
	if !slices.Contains(Names(), name) {
		return nil, false
	}
	src, err := files.ReadFile(name + ".yaml")
	return src, err == nil
}

// Schema returns the JSON Schema (2020-12) of scenario files.
func Schema() []byte {
	src, err := files.ReadFile("schema.json")
	if err != nil {
		panic("scenarios: " + err.Error()) // embedded: can't happen
	}
	return src
}
