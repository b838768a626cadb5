package optimizer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"path"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/guard"
	"phasegate/optimizer/telemetry"
	"phasegate/optimizer/upstream"
)

// Config is everything that can be set. The zero value of every field but
// Upstream.URL means the default that stands beside it; where zero itself means
// something, the field is a pointer. The YAML keys are a contract with users.
type Config struct {
	Listen string `yaml:"listen" help:"address for clients; default 127.0.0.1:8080"`
	// Handover is where a restarted optimizer finds the one that runs, to go on with its
	// listening sockets. Only processes of the same user can take part.
	Handover  string           `yaml:"handover" help:"path of a unix socket, through which a second optimizer with the same path takes the listening sockets over and ends the first, without losing a request; default none"`
	TLS       TLS              `yaml:"tls"`
	HTTP2     HTTP2            `yaml:"http2"`
	Admin     Admin            `yaml:"admin"`
	Upstream  upstream.Config  `yaml:"upstream"`
	Cache     Cache            `yaml:"cache"`
	Guard     guard.Config     `yaml:"guard"`
	Breaker   upstream.Breaker `yaml:"breaker"`
	Telemetry Telemetry        `yaml:"telemetry"`

	Logger    *slog.Logger           `yaml:"-"` // default: nothing is logged
	AccessLog io.Writer              `yaml:"-"` // where lines of the access log go that have no file; around a reload two goroutines may write; default: nowhere
	Source    func() (Config, error) `yaml:"-"` // reads the configuration anew for Reload; default: there is none
}

// Admin sets the listener for operators.
type Admin struct {
	Listen string `yaml:"listen" help:"default 127.0.0.1:0, any free port"`
	Pprof  bool   `yaml:"pprof" help:"serve profiles of the process at /debug/pprof/; default false"`
}

// Cache sets what is stored, and for how long where the response says nothing.
type Cache struct {
	MaxMemoryMB    int            `yaml:"max_memory_mb" help:"bound on the process, in 10^6 bytes; default 100, at least 40"`
	Capacity       int            `yaml:"capacity" help:"bound on the entries; default none"`
	MaxObjectShare float64        `yaml:"max_object_share" help:"largest share of the cache that one response may take, larger ones are streamed; at most 0.25, default 0.125"`
	Policy         string         `yaml:"policy" help:"what goes for want of room: lru, what wasn't used lately; s3fifo, most of what is new, unless it is used soon; default lru"`
	DefaultTTL     *time.Duration `yaml:"default_ttl" help:"lifetime where the response says nothing; default 0s: such responses aren't stored. One with Last-Modified has a tenth of its age then"`
	NegativeTTL    *time.Duration `yaml:"negative_ttl" help:"the same for 404, 405, 410, 414 and 501; default 10s"`
	RefreshAhead   *float64       `yaml:"refresh_ahead" help:"share of its lifetime after which a response that is used is fetched anew in the background; default 0.9, 0: never"`

	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate" help:"allowance where the response names none; default 0s"`
	StaleIfError         time.Duration `yaml:"stale_if_error" help:"allowance where the response names none; default 0s"`
	// StaleWhenDisconnected is the allowance where neither response nor StaleIfError
	// names one and the upstream doesn't answer at all (RFC 9111 §4.2.4); default 1m.
	StaleWhenDisconnected *time.Duration `yaml:"stale_when_disconnected" help:"allowance where nobody names one and the upstream doesn't answer at all; default 1m"`

	// Cookies says when a response with Set-Cookie, or to a request with Cookie, is
	// stored for everybody. guarded, the default: if it says public or s-maxage, or is
	// to be stored without the cookie; rfc9111: also if it names any lifetime (§7.3).
	Cookies string `yaml:"cookies" help:"when responses with Set-Cookie, or to requests with Cookie, are shared: guarded (public, s-maxage) or rfc9111 (any lifetime); default guarded"`
	// PurgeFrom lists the networks, like 127.0.0.1/32, whose clients may invalidate
	// by the method PURGE; default none.
	// ForwardHeaders keeps other fields away from the upstream, whose answer might depend
	// on them without saying so in Vary: then one client could choose what all get.
	ForwardHeaders []string `yaml:"forward_headers" help:"request fields that reach the upstream where its answer may be stored; Authorization, Cookie, Cache-Control and Pragma do in any case; default all"`
	IgnoreQuery    []string `yaml:"ignore_query" help:"query parameters that make no difference, like utm_*: neither the cache nor the upstream sees them; default none"`
	SortQuery      bool     `yaml:"sort_query" help:"whether the order of query parameters makes no difference: they are sorted by name; default false"`
	PurgeFrom      []string `yaml:"purge_from" help:"networks, like 127.0.0.1/32, whose clients may use the method PURGE; default none"`
}

// Telemetry sets what is told beside the metrics.
type Telemetry struct {
	AccessLog     string `yaml:"access_log" help:"one line per request on standard error or in access_log_file: json, combined or off; default off"` // true and false, which it was once, are json and off
	AccessLogFile string `yaml:"access_log_file" help:"file that access-log lines are appended to; SIGHUP opens it anew; default standard error"`
}

// The values of cache.cookies.
const (
	cookiesGuarded = "guarded"
	cookiesRFC9111 = "rfc9111"
)

// policies are the values of cache.policy.
var policies = map[string]arena.Policy{policyLRU: arena.LRU{}, "s3fifo": arena.S3FIFO{}}

const policyLRU = "lru"

// purgePrefixes is PurgeFrom, parsed; it is valid.
func (c Cache) purgePrefixes() (prefixes []netip.Prefix) {
	for _, text := range c.PurgeFrom {
		if p, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// Shares of max_memory_mb, found by measuring the peak resident set under churn.
const (
	bufferShare   = 0.02   // bodies that arrive on the heap, being of unknown length, or are to be sent up
	unsentShare   = 0.01   // copies of small answers that wait for clients to take them
	keptShare     = 0.01   // header lists and bodies of requests of HTTP/2 under way; to serve one takes 3 to 6 times its header list
	arrivingShare = 0.25   // of the cache: bodies that arrive where they will be stored; one of them can't be larger
	pendingShare  = 0.5    // of the cache: answers of HTTP/2 that may wait until their clients have taken others
	programBytes  = 14.6e6 // pages of the program itself, and what the runtime holds for itself
	runtimeBytes  = 3e6    // of these, what the runtime's limit counts; left out of it, the collector hardly rests
	minMemoryMB   = 40     // below this the runtime and a few hundred connections leave no cache worth the name
	heapLeast     = 9e6    // what the heap, its garbage and the stacks get beyond heapShare
	heapShare     = 0.02
)

// WithDefaults returns c with every absent value replaced by its default.
func (c Config) WithDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	if c.TLS.MinVersion == "" {
		c.TLS.MinVersion = "1.2"
	}
	if c.HTTP2.MaxConcurrentStreams == 0 {
		c.HTTP2.MaxConcurrentStreams = 128
	}
	if c.Admin.Listen == "" {
		c.Admin.Listen = "127.0.0.1:0"
	}
	if c.Cache.MaxMemoryMB == 0 {
		c.Cache.MaxMemoryMB = 100
	}
	if c.Cache.MaxObjectShare == 0 {
		c.Cache.MaxObjectShare = 0.125
	}
	if c.Cache.Policy == "" {
		c.Cache.Policy = policyLRU
	}
	if c.Cache.DefaultTTL == nil {
		c.Cache.DefaultTTL = new(time.Duration(0))
	}
	if c.Cache.NegativeTTL == nil {
		c.Cache.NegativeTTL = new(10 * time.Second)
	}
	if c.Cache.RefreshAhead == nil {
		c.Cache.RefreshAhead = new(0.9)
	}
	if c.Cache.StaleWhenDisconnected == nil {
		c.Cache.StaleWhenDisconnected = new(time.Minute)
	}
	if c.Cache.Cookies == "" {
		c.Cache.Cookies = cookiesGuarded
	}
	c.Upstream.Breaker = c.Breaker
	c.Upstream = c.Upstream.WithDefaults()
	c.Breaker = c.Upstream.Breaker
	c.Guard = c.Guard.WithDefaults()
	switch c.Telemetry.AccessLog {
	case "", "false":
		c.Telemetry.AccessLog = telemetry.Off
	case "true":
		c.Telemetry.AccessLog = telemetry.JSON
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every fault, joined, each beginning with the key at fault. Files of
// certificates and keys are read.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Cache.MaxMemoryMB < minMemoryMB || c.Cache.MaxMemoryMB > 1<<20 {
		fault("cache.max_memory_mb: %d, must be %d to 1048576", c.Cache.MaxMemoryMB, minMemoryMB)
	}
	if c.Cache.Capacity < 0 {
		fault("cache.capacity: %d, must be 0 (no bound) or above", c.Cache.Capacity)
	}
	if !(c.Cache.MaxObjectShare > 0 && c.Cache.MaxObjectShare <= arrivingShare) {
		fault("cache.max_object_share: %v, must be above 0 and at most %v", c.Cache.MaxObjectShare, arrivingShare)
	}
	if policies[c.Cache.Policy] == nil {
		fault("cache.policy: %q, must be lru or s3fifo", c.Cache.Policy)
	}
	if s := *c.Cache.RefreshAhead; !(s >= 0 && s < 1) {
		fault("cache.refresh_ahead: %v, must be 0 (never) to below 1", s)
	}
	if c.Cache.Cookies != cookiesGuarded && c.Cache.Cookies != cookiesRFC9111 {
		fault("cache.cookies: %q, must be guarded or rfc9111", c.Cache.Cookies)
	}
	if _, err := telemetry.ParseFormat(c.Telemetry.AccessLog); err != nil {
		fault("telemetry.access_log: %w", err)
	}
	c.TLS.check(fault)
	if n := c.HTTP2.MaxConcurrentStreams; n < 1 || n > 1<<16 {
		fault("http2.max_concurrent_streams: %d, must be 1 to 65536", n)
	}
	if err := checkHandover(c.Handover); err != nil {
		fault("handover: %w", err)
	}
	for _, text := range c.Cache.PurgeFrom {
		if _, err := netip.ParsePrefix(text); err != nil {
			fault("cache.purge_from: %q, must be networks like 10.0.0.0/8 or 127.0.0.1/32", text)
		}
	}
	for _, name := range c.Cache.ForwardHeaders {
		if !guard.ValidToken(name) {
			fault("cache.forward_headers: %q, must be names of header fields", name)
		}
	}
	for _, pattern := range c.Cache.IgnoreQuery {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			fault("cache.ignore_query: %q, must be names of parameters, with * for any characters", pattern)
		}
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"default_ttl", *c.Cache.DefaultTTL}, {"negative_ttl", *c.Cache.NegativeTTL},
		{"stale_while_revalidate", c.Cache.StaleWhileRevalidate}, {"stale_if_error", c.Cache.StaleIfError},
		{"stale_when_disconnected", *c.Cache.StaleWhenDisconnected},
	} {
		if d.value < 0 || d.value > 0 && d.value < time.Millisecond || d.value > math.MaxInt64/4 {
			fault("cache.%s: %v, must be 0s or 1ms and more (a number needs a unit, like 5m)", d.key, d.value)
		}
	}
	return errors.Join(append(faults, c.Upstream.Validate(), c.Guard.Validate())...)
}

// CacheBytes is the room for stored responses and what keeping them costs: what
// program and heap leave of cache.max_memory_mb.
func (c Config) CacheBytes() int64 {
	return int64(float64(c.Cache.MaxMemoryMB)*1e6-programBytes) - c.heapBytes()
}

// heapBytes is the part of what the Go runtime manages.
func (c Config) heapBytes() int64 {
	return int64(heapLeast + heapShare*float64(c.Cache.MaxMemoryMB)*1e6)
}

// LimitProcessMemory tells the Go runtime to keep this process within
// cache.max_memory_mb. It concerns the whole process, so a program that embeds the
// optimizer decides for itself whether to call it; cmd/optimizer does.
func LimitProcessMemory(c Config) {
	c = c.WithDefaults()
	debug.SetMemoryLimit(c.heapBytes() + runtimeBytes)
	debug.SetGCPercent(100)
}

// ReadConfig reads a configuration file; name is used in messages. An unknown key,
// a value of the wrong kind, and everything that Validate reports is an error that
// begins with name:line:column. The zero file is valid but for upstream.url, which
// may still come from elsewhere, so Validate isn't called here; Settings.Explain
// finds the place of what it reports.
func ReadConfig(name string, r io.Reader) (Config, *Settings, error) {
	var c Config
	text, err := io.ReadAll(r)
	if err != nil {
		return c, nil, fmt.Errorf("read %s: %w", name, err)
	}
	positioned := func(err error) error {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			p := at.GetToken().Position
			return fmt.Errorf("%s:%d:%d: %s", name, p.Line, p.Column, at.GetMessage())
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return c, nil, positioned(err)
	}
	if len(file.Docs) > 1 && file.Docs[1].Body != nil {
		at := file.Docs[1].Start.Position
		return c, nil, fmt.Errorf("%s:%d:%d: a second document begins, must be one", name, at.Line, at.Column)
	}
	s := &Settings{name: name, file: file}
	// The decoder loses the place of a bad duration or size, and the key of what has
	// another type, so they are read first.
	if err := s.checkScalars(reflect.TypeFor[Config](), ""); err != nil {
		return c, nil, err
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, nil, positioned(err)
	}
	return c, s, nil
}

// checkScalars reports every value in the file that can't be read as what its key
// stands for.
func (s *Settings) checkScalars(t reflect.Type, prefix string) error {
	var faults []error
	for field := range t.Fields() {
		key := prefix + field.Tag.Get("yaml")
		kind := field.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		var err error
		node := s.node(key)
		switch {
		case field.Tag.Get("yaml") == "-":
			continue
		case kind.Kind() == reflect.Struct:
			if _, scalar := node.(ast.ScalarNode); scalar && node.Type() != ast.NullType || isList(node) {
				err = mismatch(node, "keys, each with a value")
				break
			}
			faults = append(faults, s.checkScalars(kind, key+"."))
			continue
		case node == nil || node.Type() == ast.NullType:
		case kind == reflect.TypeFor[time.Duration]():
			if text, ok := s.scalar(key); ok {
				_, err = readDuration(text)
			}
		case kind == reflect.TypeFor[guard.Size]():
			if text, ok := s.scalar(key); ok {
				_, err = guard.ParseSize(text)
			}
		default:
			if yaml.NodeToValue(node, reflect.New(kind).Interface()) != nil {
				err = mismatch(node, kinds[kind.Kind()])
			}
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", s.Source(key), key, err))
		}
	}
	return errors.Join(faults...)
}

// kinds says what is read into fields of a kind.
var kinds = map[reflect.Kind]string{
	reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Int64: "a whole number", reflect.Float64: "a number",
	reflect.String: "text", reflect.Slice: "a list",
}

func isList(node ast.Node) bool { return node != nil && node.Type() == ast.SequenceType }

// mismatch says what a node is, and what it must be.
func mismatch(node ast.Node, must string) error {
	found := "keys"
	if isList(node) {
		found = "a list"
	} else if _, ok := node.(ast.ScalarNode); ok {
		found = strconv.Quote(node.GetToken().Value)
	}
	return fmt.Errorf("%s, must be %s", found, must)
}

// Settings knows where the values of a configuration come from: a default, the
// file, or what Set was told. The zero value knows of defaults only.
type Settings struct {
	name string
	file *ast.File
	set  map[string]string // key → what set it after the file
}

// Source says where the value of a key, like cache.default_ttl, comes from.
func (s *Settings) Source(key string) string {
	if source, ok := s.set[key]; ok {
		return source
	}
	if at, ok := s.position(key); ok {
		return at
	}
	return "default"
}

func (s *Settings) position(key string) (string, bool) {
	node := s.node(key)
	if node == nil {
		return "", false
	}
	p := node.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", s.name, p.Line, p.Column), true
}

// scalar returns the text of a key's value, if the file has one.
func (s *Settings) scalar(key string) (string, bool) {
	node, ok := s.node(key).(ast.ScalarNode)
	if !ok {
		return "", false
	}
	return node.GetToken().Value, true
}

func (s *Settings) node(key string) ast.Node {
	if s.file == nil || len(s.file.Docs) == 0 || s.file.Docs[0].Body == nil {
		return nil
	}
	path, err := yaml.PathString("$." + key)
	if err != nil {
		return nil
	}
	node, err := path.FilterFile(s.file)
	if err != nil || node == nil || node.GetToken() == nil {
		return nil
	}
	return node
}

// Explain puts the place of each fault that Validate found before it, where the
// fault's key stands in the file.
func (s *Settings) Explain(err error) error {
	if err == nil {
		return nil
	}
	var lines []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, ":")
		if source := s.Source(key); source != "default" {
			line = source + ": " + line
		}
		lines = append(lines, errors.New(line))
	}
	return errors.Join(lines...)
}

// Print writes the effective configuration as YAML, with the source of each value.
func (s *Settings) Print(w io.Writer, c Config) error {
	var out bytes.Buffer
	s.print(&out, reflect.ValueOf(c), reflect.ValueOf(c.WithDefaults()), "", "")
	_, err := w.Write(out.Bytes())
	return err
}

// print writes a section, of which given is what was set.
func (s *Settings) print(out *bytes.Buffer, given, v reflect.Value, prefix, indent string) {
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		if key == "-" {
			continue
		}
		given, value := given.Field(i), v.Field(i)
		if value.Kind() == reflect.Struct {
			fmt.Fprintf(out, "%s%s:\n", indent, key)
			s.print(out, given, value, prefix+key+".", indent+"  ")
			continue
		}
		source := s.Source(prefix + key)
		if source != "default" && given.IsZero() && show(given) != show(value) {
			source = fmt.Sprintf("default, which %s in %s means", show(given), source)
		}
		fmt.Fprintf(out, "%-50s # %s\n", fmt.Sprintf("%s%s: %s", indent, key, show(value)), source)
	}
}

// show is a value as YAML.
func show(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "null"
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Slice:
		return "[" + strings.Join(v.Interface().([]string), ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}
