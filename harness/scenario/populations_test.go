package scenario_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"phasegate/harness/scenario"
)

const populated = `name: t
upstream:
  cache_control: public, max-age=600
  paths:
    - {prefix: /live/, cache_control: no-store}
    - {prefix: /flaky/, errors: 10%}
systems: {new: {kind: optimizer}}
load:
  rate: 100/s
  keys: {distribution: uniform, count: 10}
  also:
    - {share: 10%, path: "/search?q={key}", keys: 50, header: {Accept-Language: [de, en], X-Tier: 7}}
    - {share: 5%, path: /home, close: true}
  writes: {share: 1%}
profiles: {quick: {steady: 10s}}
gates: [error_rate < 1%]
`

func TestPopulations(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(populated), "t.yaml", scenario.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]scenario.Population{
		{Share: 0.1, Path: "/search?q={key}", Count: 50, Fields: []scenario.Field{{"Accept-Language", []string{"de", "en"}}, {"X-Tier", []string{"7"}}}},
		{Share: 0.05, Path: "/home", Count: 1, Close: true},
	}, plan.Load.Also); diff != "" {
		t.Errorf("load.also (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]scenario.UpstreamPath{
		{Prefix: "/live/", CacheControl: "no-store"},
		{Prefix: "/flaky/", CacheControl: "public, max-age=600", Errors: 0.1},
	}, plan.Upstream.Paths); diff != "" {
		t.Errorf("upstream.paths (-want +got):\n%s", diff)
	}
	if err := validate(t, resolvedSchema(t), populated); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
}

func TestPopulationsAreDroppedForALog(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(populated), "t.yaml", scenario.Options{Set: []string{"load.keys={access_log: x.log}"}})
	if err != nil || len(plan.Load.Also) > 0 || !strings.Contains(strings.Join(plan.Notices, "\n"), "load.also dropped") {
		t.Errorf("%v, %+v", err, plan)
	}
}

func TestPopulationsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, from, to, want string }{
		{"more than there is", "share: 5%", "share: 95%", "load.also.1: with the shares before it and the writes it comes to 106%, which leaves nothing for load.path; allowed: below 100%"},
		{"many keys in one path", "path: /home", "path: /home, keys: 2", `load.also.1.path: /home has no {key}, so all 2 keys would be one`},
		{"a field that frames the message", "X-Tier", "Content-Length", `Content-Length is not the name of a field that a request may bring here`},
		{"no name of a field", "X-Tier", `"X Tier"`, `"X Tier" is not the name of a field`},
		{"no value", "X-Tier: 7", "X-Tier: []", `X-Tier has no value; allowed: one, or a list to draw from`},
		{"a value of two lines", "X-Tier: 7", `X-Tier: "a\nb"`, "is not the value of a field"},
		{"a mapping for a value", "X-Tier: 7", "X-Tier: [{a: b}]", "a mapping is not the value of a field"},
		{"one stream can't close its connection", "rate: 100/s", "rate: 100/s\n  protocol: h2c", "load.also.1.close: the requests of one HTTP/2 connection can't close it"},
		{"a prefix that is no path", "prefix: /live/", "prefix: live", `upstream.paths.0.prefix: live is not a path`},
		{"a policy with a unit", "cache_control: no-store", "cache_control: max-age=5m", "upstream.paths.0.cache_control"},
	} {
		if !strings.Contains(populated, tt.from) {
			t.Fatalf("%s: nothing to replace", tt.why)
		}
		_, err := scenario.Compile([]byte(strings.Replace(populated, tt.from, tt.to, 1)), "t.yaml", scenario.Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n got %v\nwant %s", tt.why, err, tt.want)
		}
	}
}
