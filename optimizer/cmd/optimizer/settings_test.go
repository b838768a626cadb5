package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"phasegate/optimizer"
)

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "o.yaml")
	if err := os.WriteFile(file, []byte("cache:\n  default_ttl: 1m\n  negative_ttl: 1m\n  stale_if_error: 1m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPTIMIZER_CACHE_DEFAULT_TTL", "2m")
	t.Setenv("OPTIMIZER_CACHE_NEGATIVE_TTL", "2m")
	t.Setenv("OPTIMIZER_CACHE_PURGE_FROM", "10.0.0.0/8, 127.0.0.1/32")
	var out, fault bytes.Buffer
	args := []string{"-check", "--upstream", "http://a", "-config", file, "--cache-default-ttl=3m", "--upstream-preserve-host"}
	if code := run(t.Context(), args, &out, &fault); code != 0 {
		t.Fatalf("code %d: %s", code, fault.String())
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"default_ttl: 3m0s # flag --cache-default-ttl", "negative_ttl: 2m0s # env OPTIMIZER_CACHE_NEGATIVE_TTL", "stale_if_error: 1m0s # " + file + ":4:19",
		"stale_while_revalidate: 0s # default", "purge_from: [10.0.0.0/8, 127.0.0.1/32] # env OPTIMIZER_CACHE_PURGE_FROM",
		`url: "http://a" # flag --upstream`, "preserve_host: true # flag --upstream-preserve-host",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	t.Setenv("OPTIMIZER_CACHE_NEGATIVE_TTL", "soon")
	if code := run(t.Context(), args, io.Discard, &fault); code != 2 || !strings.Contains(fault.String(), `env OPTIMIZER_CACHE_NEGATIVE_TTL: cache.negative_ttl: "soon" is not a duration`) {
		t.Errorf("code %d: %s", code, fault.String())
	}
}

func TestHelpGroupsEveryKey(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &out, io.Discard); code != 0 {
		t.Fatal(code)
	}
	for _, key := range optimizer.Keys() {
		section, _, _ := strings.Cut(key.Name, ".")
		if !strings.Contains(out.String(), "--"+key.Flag()) || key.Help == "" || !strings.Contains(out.String(), "\n"+groups[section]+"\n") || groups[section] == "" {
			t.Errorf("%s isn't in the help, or has none, or no group", key.Name)
		}
	}
}
