package scenarios_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"phasegate/scenarios"
)

// Each scenario is found under the name that it has inside: result folders and
// messages use that one.
func TestNamesAreTheScenariosOwn(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios.Names() {
		src, ok := scenarios.Read(name)
		if !ok || !strings.Contains(string(src), "\nname: "+name+"\n") {
			t.Errorf("%s.yaml doesn't have this name inside", name)
		}
		// Editors look for the schema beside the file.
		if !strings.HasPrefix(string(src), "# yaml-language-server: $schema=schema.json\n") {
			t.Errorf("%s.yaml doesn't name its schema", name)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "phase9", "phase1.yaml", "schema.json", "../scenarios/phase1", "schema"} {
		if src, ok := scenarios.Read(name); ok {
			t.Errorf("%q: %d bytes", name, len(src))
		}
	}
}

func TestSchemaIsJSON(t *testing.T) {
	t.Parallel()
	if !json.Valid(scenarios.Schema()) {
		t.Error("schema.json is not JSON")
	}
}

func ExampleNames() {
	for _, name := range scenarios.Names() {
		src, _ := scenarios.Read(name)
		_, title, _ := strings.Cut(string(src), "\ntitle: ")
		title, _, _ = strings.Cut(title, "\n")
		fmt.Println(name, title)
	}
	// Output:
	// compare Side by side
	// defects-churn Planted defects (churn)
	// defects-content Planted defects (content)
	// defects-faults Planted defects (a failing upstream)
	// defects-keys Planted defects (many keys)
	// defects-service Planted defects (service)
	// exhaustion More misses at once than connections
	// faults-answers Faults of the upstream's answers and handshakes
	// faults-network Faults of connections and networks
	// phase1 Basic cache
	// phase2 HTTP/2
	// phase3 Monitoring
	// phase4 Hardening
	// regression Cost per request
}
