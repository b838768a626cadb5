package optimizer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestASnapshotOfTheCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(req *http.Request) (*http.Response, error) {
			lines := map[string][]string{
				"/item/1": {fresh, "Surrogate-Key: a  b", "Cache-Tag: c d, e"}, "/item/2": {"Cache-Control: max-age=5, stale-while-revalidate=60", "Vary: Foo"},
				"/item/3": {"Cache-Control: private"},
			}[req.URL.Path]
			status := 200
			if lines == nil {
				status, lines = 404, []string{fresh}
			}
			return respond(req, status, "x", lines...), nil
		})
		for _, target := range []string{"/item/1", "/item/2", "/item/3", "/none?q=1"} {
			r.do("GET", target)
		}
		time.Sleep(8 * time.Second)
		o := &Optimizer{cfg: Config{}.WithDefaults(), handler: r.h}
		ask := func(query string) (status int, got contents) {
			w := httptest.NewRecorder()
			o.snapshot(w, httptest.NewRequest("GET", "/cache"+query, nil))
			if w.Code == http.StatusOK {
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
					t.Fatalf("%s: %v in %s", query, err, w.Body)
				}
			}
			return w.Code, got
		}
		item1 := listedEntry{Key: "api.test/item/1", Kind: "response", Status: 200, Age: new(int64(8)), Remaining: new(int64(3592)), Tags: []string{"c d", "e", "a", "b"}}
		response2 := listedEntry{Key: "api.test/item/2", Kind: "response", Status: 200, Age: new(int64(8)), Remaining: new(int64(-3))}
		varying2 := listedEntry{Key: "api.test/item/2", Kind: "varying"}
		item3 := listedEntry{Key: "api.test/item/3", Kind: "passing", Remaining: new(int64(2))}
		none := listedEntry{Key: "api.test/none?q=1", Kind: "response", Status: 404, Age: new(int64(8)), Remaining: new(int64(3592))}
		for _, tt := range []struct {
			query string
			want  []listedEntry
		}{
			{"", []listedEntry{item1, response2, varying2, item3, none}},
			{"?path=/item/2", []listedEntry{response2, varying2}},
			{"?path=API.test/n*&path=http://api.test/*/1&limit=2000", []listedEntry{item1, none}},
			{"?path=other.test/*", []listedEntry{}},
		} {
			_, got := ask(tt.query)
			slices.SortFunc(got.Listed, func(a, b listedEntry) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind)) })
			for i := range got.Listed {
				if got.Listed[i].Bytes <= 0 || got.Listed[i].Bytes >= got.Bytes {
					t.Errorf("%s: %d bytes of %d", got.Listed[i].Key, got.Listed[i].Bytes, got.Bytes)
				}
				got.Listed[i].Bytes = 0
			}
			stats := r.h.store.cache.Stats()
			want := contents{Entries: 5, Bytes: stats.Bytes, MaxBytes: o.cfg.CacheBytes(), Matching: len(tt.want), Listed: tt.want}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%q:\n%s, must be\n%s", tt.query, asJSON(got), asJSON(want))
			}
		}
		if _, got := ask("?limit=2"); len(got.Listed) != 2 || got.Matching != 5 || !got.Truncated {
			t.Errorf("cut off at 2: %s", asJSON(got))
		}
		for _, query := range []string{"?limit=2001", "?limit=-1", "?limit=x", "?path=api.test", "?path=%zz", "?tag=a"} {
			if status, _ := ask(query); status != http.StatusBadRequest {
				t.Errorf("%s: %d, must be 400", query, status)
			}
		}
		for i := range 2 * mostText / 4000 {
			r.do("GET", fmt.Sprintf("/%d?%s", i, strings.Repeat("x", 4000)))
		}
		if _, got := ask("?limit=2000"); len(got.Listed) > mostText/4000+5 || !got.Truncated {
			t.Errorf("%d keys of 4000 bytes are listed, truncated %v", len(got.Listed), got.Truncated)
		}
	})
}

func asJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}

// Profiles are for operators who have asked for them, whoever else has registered some.
func TestProfilesAreBehindAFlag(t *testing.T) {
	t.Parallel()
	for _, set := range []bool{false, true} {
		o := running(t, http.NotFound, func(_ *Optimizer, c *Config) { c.Admin.Pprof = set })
		for address, want := range map[string]bool{o.AdminAddr().String(): set, o.Addr().String(): false} {
			for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
				resp, err := http.Get("http://" + address + path)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if served := resp.StatusCode == http.StatusOK; served != want || !served && resp.StatusCode != http.StatusNotFound {
					t.Errorf("admin.pprof %v: %s%s: %d", set, address, path, resp.StatusCode)
				}
			}
		}
	}
}

// A log that stays where and what it is stays itself at a reload; a file is opened anew,
// because it may have been moved.
func TestAReloadKeepsTheAccessLogThatStays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file, format, next string
		kept               bool
	}{
		{"", "json", "json", true}, {"", "json", "combined", false}, {filepath.Join(t.TempDir(), "log"), "json", "json", false},
	} {
		cfg := Config{AccessLog: io.Discard}.WithDefaults()
		cfg.Telemetry = Telemetry{tt.format, tt.file}
		next := cfg
		next.Telemetry.AccessLog = tt.next
		old, err := newRules(cfg, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if now, err := newRules(next, cfg, old); err != nil || (now.access == old.access) != tt.kept {
			t.Errorf("%+v: kept %v, %v", tt, now.access == old.access, err)
		}
	}
}
