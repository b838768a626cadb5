package optimizer

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"phasegate/optimizer/guard"
)

// Key is one thing that can be set: by a key of the file, by a flag, or by an
// environment variable.
type Key struct {
	Name   string // in the file, with its sections: cache.default_ttl
	Help   string // what it sets, in words, with its default
	Switch bool   // it is true or false
	Live   bool   // it changes at a reload; others need a restart
}

// Flag is the key's flag, without dashes: cache-default-ttl.
func (k Key) Flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(k.Name) }

// Env is the key's environment variable: OPTIMIZER_CACHE_DEFAULT_TTL.
func (k Key) Env() string {
	return "OPTIMIZER_" + strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_"))
}

// live lists the keys, and sections of keys, that a reload changes in a running
// optimizer. The others are built into sockets, buffers, the store or the upstream's
// connections.
var live = []string{
	"cache.default_ttl", "cache.negative_ttl", "cache.refresh_ahead", "cache.stale_while_revalidate", "cache.stale_if_error",
	"cache.stale_when_disconnected", "cache.cookies", "cache.purge_from", "cache.forward_headers", "cache.ignore_query", "cache.sort_query",
	"guard.max_uri_length", "guard.rate_limit", "telemetry", "tls",
}

// Keys lists all keys, in the order of the file.
func Keys() []Key {
	var keys []Key
	eachKey(reflect.ValueOf(&Config{}).Elem(), "", func(name string, field reflect.StructField, _ reflect.Value) {
		keys = append(keys, Key{
			Name: name, Help: field.Tag.Get("help"), Switch: field.Type.Kind() == reflect.Bool,
			Live: slices.ContainsFunc(live, func(l string) bool { return name == l || strings.HasPrefix(name, l+".") }),
		})
	})
	return keys
}

// eachKey calls f for every key below v, a struct.
func eachKey(v reflect.Value, prefix string, f func(name string, field reflect.StructField, value reflect.Value)) {
	for field, value := range v.Fields() {
		name := field.Tag.Get("yaml")
		switch {
		case name == "-":
		case field.Type.Kind() == reflect.Struct:
			eachKey(value, prefix+name+".", f)
		default:
			f(prefix+name, field, value)
		}
	}
}

// Set sets one key of c to a value written as a flag or an environment variable has
// it, a list with commas, and notes the source, like "flag --listen".
func (s *Settings) Set(c *Config, key, text, source string) error {
	err := errors.New("no such key")
	eachKey(reflect.ValueOf(c).Elem(), "", func(name string, _ reflect.StructField, value reflect.Value) {
		if name == key {
			err = setText(value, text)
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", source, key, err)
	}
	if s.set == nil {
		s.set = map[string]string{}
	}
	s.set[key] = source
	return nil
}

func setText(value reflect.Value, text string) error {
	if value.Kind() == reflect.Pointer {
		value.Set(reflect.New(value.Type().Elem()))
		value = value.Elem()
	}
	switch target := value.Addr().Interface().(type) {
	case *string:
		*target = text
	case *[]string:
		*target = nil
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*target = append(*target, part)
			}
		}
	case *time.Duration:
		d, err := readDuration(text)
		*target = d
		return err
	case *guard.Size:
		size, err := guard.ParseSize(text)
		*target = size
		return err
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q, must be true or false", text)
		}
		*target = b
	default:
		if err := yaml.Unmarshal([]byte(text), target); err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
	}
	return nil
}

func readDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write a number with a unit, like 250ms or 5m", text)
	}
	return d, nil
}
