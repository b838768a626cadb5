package scenario_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/jsonschema-go/jsonschema"

	"phasegate/harness/scenario"
	"phasegate/scenarios"
)

var update = flag.Bool("update", false, "write golden files")

// schemaFile is the schema's place for editors.
const schemaFile = "../../scenarios/schema.json"

func TestSchemaFileIsMadeFromTheGrammar(t *testing.T) {
	t.Parallel()
	want := scenario.Schema()
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(scenarios.Schema(), want) {
		t.Errorf("%s is not what the grammar says; go test ./harness/scenario -run SchemaFile -update", schemaFile)
	}
}

func resolvedSchema(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	var schema jsonschema.Schema
	if err := json.Unmarshal(scenario.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

// validate says what the schema says about a YAML document.
func validate(t *testing.T, schema *jsonschema.Resolved, src string) error {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal([]byte(src), &doc); err != nil {
		t.Fatal(err)
	}
	// By way of JSON, so that all numbers are what a JSON validator expects.
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	return schema.Validate(plain)
}

func TestSchemaAcceptsEmbeddedScenarios(t *testing.T) {
	t.Parallel()
	schema := resolvedSchema(t)
	for _, name := range scenarios.Names() {
		src, _ := scenarios.Read(name)
		if err := validate(t, schema, string(src)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaAcceptsWhatCompiles(t *testing.T) {
	t.Parallel()
	schema := resolvedSchema(t)
	for _, tt := range accepted {
		if err := validate(t, schema, tt.src); err != nil {
			t.Errorf("%s: %v\n%s", tt.why, err, tt.src)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	schema := resolvedSchema(t)
	for _, tt := range []struct{ why, from, to string }{
		{"an unknown key is most often a typing error", "name: t", "nmae: t"},
		{"a required key", "name: t\n", ""},
		{"a unit is never guessed", "latency: 20ms", "latency: 20"},
		{"a size is no duration", "latency: 20ms", "latency: 20MB"},
		{"a share of more than 1", "share: 1%", "share: 1.5"},
		{"a kind that this version doesn't have", "kind: optimizer", "kind: squid"},
		{"a gate on nothing", "- p95_latency < 10ms", "- p95_latencies < 10ms"},
		{"a gate in the wrong unit", "- p95_latency < 10ms", "- p95_latency < 10MB"},
		{"a protocol that nobody speaks", "rate: 100/s", "rate: 100/s\n  protocol: h3"},
		{"a profile that isn't one", "quick:", "fast:"},
	} {
		src := strings.Replace(valid, tt.from, tt.to, 1)
		if src == valid {
			t.Errorf("%s: %q is not in the document", tt.why, tt.from)
		}
		if err := validate(t, schema, src); err == nil {
			t.Errorf("%s: accepted\n%s", tt.why, src)
		}
	}
	if err := validate(t, schema, valid); err != nil {
		t.Errorf("the document itself: %v", err)
	}
}
