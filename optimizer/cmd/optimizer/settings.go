package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"phasegate/optimizer"
)

// short are the flags that have a second, shorter name.
var short = map[string]string{"upstream.url": "upstream", "admin.listen": "admin"}

func flagName(key optimizer.Key) string {
	if name := short[key.Name]; name != "" {
		return name
	}
	return key.Flag()
}

// groups are the headings of --help, by the section of a key.
var groups = map[string]string{
	"listen": "Listening:", "handover": "Listening:", "tls": "Listening:", "http2": "Listening:", "admin": "Listening:", "upstream": "Upstream:", "cache": "Cache:",
	"guard": "Limits for clients:", "breaker": "Breaker:", "telemetry": "Telemetry:",
}

// commandLine is what the arguments and the environment say.
type commandLine struct {
	file  string
	check bool
	given []setting // in rising precedence
}

type setting struct{ key, value, source string }

// errHelp says that the help was printed, and that this is all.
var errHelp = errors.New("help was printed")

// parse reads the arguments and the environment. Every key of the configuration is a
// flag and a variable, by the rule that Key's methods state.
func parse(args []string, stdout io.Writer) (*commandLine, error) {
	keys := optimizer.Keys()
	fields := []reflect.StructField{
		{Name: "Config", Type: reflect.TypeFor[string](), Tag: `name:"config" placeholder:"FILE" env:"OPTIMIZER_CONFIG" help:"configuration file in YAML"`},
		{Name: "Check", Type: reflect.TypeFor[bool](), Tag: `name:"check" help:"print the effective configuration with the source of each value, and exit"`},
	}
	names := []string{"config", "check"}
	for i, key := range keys {
		section, _, _ := strings.Cut(key.Name, ".")
		kind, placeholder := reflect.TypeFor[*string](), strings.ToUpper(key.Name[strings.LastIndexByte(key.Name, '.')+1:])
		if key.Switch {
			kind = reflect.TypeFor[*bool]()
		}
		tag := fmt.Sprintf("name:%q env:%q group:%q placeholder:%q help:%q", flagName(key), key.Env(), groups[section], placeholder, key.Help)
		names = append(names, flagName(key))
		if flagName(key) != key.Flag() {
			tag += fmt.Sprintf(" aliases:%q", key.Flag())
			names = append(names, key.Flag())
		}
		fields = append(fields, reflect.StructField{Name: "K" + strconv.Itoa(i), Type: kind, Tag: reflect.StructTag(tag)})
	}
	grammar := reflect.New(reflect.StructOf(fields))
	helped := false
	parser, err := kong.New(grammar.Interface(),
		kong.Name("optimizer"),
		kong.Description("A shared caching reverse proxy: optimizer --upstream http://HOST:PORT --listen :8080\n\n"+
			"A flag wins over its environment variable, that over the file, that over the default. "+
			"The key of the file is the flag's name with its section apart: --cache-default-ttl is default_ttl in cache. "+
			"SIGHUP, or POST /-/reload on the admin listener, reads the file anew. "+
			"--upstream is short for --upstream-url, --admin for --admin-listen. Exit codes: 0 stopped cleanly, 1 a failure, 2 usage or configuration."),
		kong.Writers(stdout, stdout),
		kong.Exit(func(int) { helped = true }),
	)
	if err != nil {
		panic(err) // the grammar is wrong: a fault of this program
	}
	parsed, err := parser.Parse(doubleDashes(args, names))
	if helped {
		return nil, errHelp
	}
	if err != nil {
		return nil, fmt.Errorf("%w; see optimizer --help", err)
	}
	written := map[string]bool{} // on the command line, rather than in the environment
	for _, at := range parsed.Path {
		if at.Flag != nil {
			written[at.Flag.Name] = true
		}
	}
	got := grammar.Elem()
	line := &commandLine{file: got.Field(0).String(), check: got.Field(1).Bool()}
	for i, key := range keys {
		value := got.Field(i + 2)
		if value.IsNil() {
			continue
		}
		s := setting{key.Name, fmt.Sprint(value.Elem().Interface()), "env " + key.Env()}
		if written[flagName(key)] {
			s.source = "flag --" + flagName(key)
		}
		line.given = append(line.given, s)
	}
	return line, nil
}

// doubleDashes lets the long flags be written with one dash, as -check is.
func doubleDashes(args, names []string) []string {
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && (slices.Contains(names, name) || name == "help") {
			args[i] = "-" + arg
		}
	}
	return args
}

// load reads the file, and puts what the command line says over it. Its errors say
// where the fault is.
func (l *commandLine) load() (optimizer.Config, *optimizer.Settings, error) {
	var cfg optimizer.Config
	settings := new(optimizer.Settings)
	if l.file != "" {
		f, err := os.Open(l.file)
		if err != nil {
			return cfg, nil, fmt.Errorf("read the configuration: %w", err)
		}
		defer f.Close()
		if cfg, settings, err = optimizer.ReadConfig(l.file, f); err != nil {
			return cfg, nil, err
		}
	}
	for _, s := range l.given {
		if err := settings.Set(&cfg, s.key, s.value, s.source); err != nil {
			return cfg, nil, err
		}
	}
	return cfg, settings, settings.Explain(cfg.Validate())
}
