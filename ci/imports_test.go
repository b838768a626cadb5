package ci

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goPackage is the part of `go list -json` that the rules need.
type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func (p goPackage) in(folder string) bool { return within(p.ImportPath, folder) }

// within reports whether an import path is the folder, seen from the module's
// root, or lies below it.
func within(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, "phasegate/"+folder)
	return ok && (rest == "" || rest[0] == '/')
}

// listPackages reads every package of the module, without its tests: a test
// may look over the fence, the product may not.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		packages = append(packages, p)
	}
}

// harnessOrder is the list of architecture: a package of the harness imports
// only what stands before it. Packages on one line don't import one another.
var harnessOrder = [][]string{
	{"harness/stat"},
	{"harness/timeline"},
	{"harness/scenario"},
	{"harness/gate"},
	{"harness/recording"},
	{"harness/environment/container", "harness/environment/network"},
	{"harness/load", "harness/environment", "harness/probe", "harness/rollout"},
	{"harness/forecast"}, // the schedule that a run keeps to, and what it could decide: it starts nothing
	{"harness"},
	{"harness/compare"},
	{"harness/cli"},
	{"harness/cmd/phasegate"},
}

func level(path string) int {
	return slices.IndexFunc(harnessOrder, func(row []string) bool {
		return slices.ContainsFunc(row, func(name string) bool { return path == "phasegate/"+name })
	})
}

// forbidClock fails where a pure package reads the clock or sleeps.
func forbidClock(t *testing.T, p goPackage) {
	t.Helper()
	for _, name := range p.GoFiles {
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
			if ok && pkg.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
				t.Errorf("%s: time.%s in a pure package: time comes in as an argument", files.Position(n.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

// TestImports keeps the arrows of the house pointing one way.
func TestImports(t *testing.T) {
	t.Parallel()
	rules := []struct {
		why    string
		breaks func(p goPackage, imported string) bool
	}{
		{
			"the optimizer is judged exactly as nginx is, a process with an address: the two halves never import each other",
			func(p goPackage, imported string) bool {
				return p.in("harness") && within(imported, "optimizer") ||
					p.in("optimizer") && strings.HasPrefix(imported, "phasegate/") && !within(imported, "optimizer")
			},
		},
		{
			"within the harness, arrows point from deciding to data, and world-touching packages are wired by harness.go only",
			func(p goPackage, imported string) bool {
				return p.in("harness") && within(imported, "harness") && level(imported) >= level(p.ImportPath)
			},
		},
		{
			"data, statistics and decisions are pure: time, files and sockets come in as arguments, so that every rule is tested without a clock",
			func(p goPackage, imported string) bool {
				pure := level(p.ImportPath) >= 0 && level(p.ImportPath) < level("phasegate/harness/recording")
				return pure && slices.Contains([]string{"net", "net/http", "os", "os/exec", "syscall"}, imported)
			},
		},
		{
			"a report is made from the result file and nothing else, so that `phasegate report` can always make it again",
			func(p goPackage, imported string) bool {
				return p.in("reports") && strings.HasPrefix(imported, "phasegate/") && !within(imported, "reports")
			},
		},
		{
			"scenarios are files, and fixtures know nobody: the mock upstream is a process of its own behind an address",
			func(p goPackage, imported string) bool {
				return p.in("scenarios") && strings.HasPrefix(imported, "phasegate/") ||
					p.in("fixtures") && strings.HasPrefix(imported, "phasegate/") && !within(imported, "fixtures")
			},
		},
		{
			"the mock upstream runs over the same seam as any system: only the command line imports it, to be that program",
			func(p goPackage, imported string) bool {
				return !p.in("harness/cli") && !p.in("fixtures") && imported == "phasegate/fixtures/upstream"
			},
		},
		{
			"result.json and compare.json are what measuring and showing agree on: only the harness fills them and only the command line hands them on; a forecast fills none, and only writes its numbers as reports do",
			func(p goPackage, imported string) bool {
				if p.ImportPath == "phasegate/harness/forecast" && imported == "phasegate/reports/unit" {
					return false
				}
				return p.in("harness") && within(imported, "reports") && p.ImportPath != "phasegate/harness" &&
					p.ImportPath != "phasegate/harness/compare" && p.ImportPath != "phasegate/harness/cli"
			},
		},
	}
	packages := listPackages(t)
	for _, p := range packages {
		if l := level(p.ImportPath); l >= 0 && l < level("phasegate/harness/recording") {
			forbidClock(t, p)
		}
	}
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages; the rules would hold for nothing", len(packages))
	}
	for _, p := range packages {
		if p.in("harness") && level(p.ImportPath) < 0 {
			t.Errorf("%s has no place in the order of the harness; give it one in harnessOrder", p.ImportPath)
		}
		for _, imported := range p.Imports {
			for _, rule := range rules {
				if rule.breaks(p, imported) {
					t.Errorf("%s imports %s, but %s", p.ImportPath, imported, rule.why)
				}
			}
		}
	}
}
