package scenario

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxSource = 64 << 10 // bytes; the embedded scenarios have 4 KiB
	maxNested = 40       // levels; the grammar needs 6
)

// form is what a YAML value is.
type form int

const (
	null form = iota
	scalar
	mapping
	list
)

func (f form) String() string {
	return [...]string{"nothing", "a single value", "a mapping", "a list"}[f]
}

// value is one YAML value together with where it was written.
type value struct {
	at     place
	form   form
	text   string   // scalar: as written, without quotation marks
	data   any      // scalar: typed by YAML's rules, for configurations that are passed on
	fields []*field // mapping, in order
	items  []*value // list
	bad    bool     // reported on reading: nothing more is said about it

	// Filled in by check:
	path string // "load.keys.count"
	read any    // what the text stands for; nil where it can't be read
}

// field is one key of a mapping with its value.
type field struct {
	name  string
	at    place
	value *value
}

// field returns the field of that name, nil if there is none.
func (v *value) field(name string) *field {
	if v == nil {
		return nil
	}
	for _, f := range v.fields {
		if f.name == name {
			return f
		}
	}
	return nil
}

// get returns the value of a key; nil where it is absent or null, which is
// the same thing everywhere in a scenario.
func (v *value) get(name string) *value {
	if f := v.field(name); f != nil && f.value.form != null {
		return f.value
	}
	return nil
}

// any converts v to what encoding packages expect: map[string]any, []any,
// string, int64, uint64, float64, bool or nil.
func (v *value) any() any {
	switch v.form {
	case scalar:
		return v.data
	case mapping:
		m := make(map[string]any, len(v.fields))
		for _, f := range v.fields {
			m[f.name] = f.value.any()
		}
		return m
	case list:
		l := make([]any, len(v.items))
		for i, item := range v.items {
			l[i] = item.any()
		}
		return l
	default:
		return nil
	}
}

// describe says what was found, for messages.
func (v *value) describe() string {
	if v.form == scalar {
		return quote(v.text)
	}
	return v.form.String()
}

// reader converts a YAML document to values.
type reader struct {
	file    string
	oneLine bool // the command line: faults are placed at file as a whole
	errs    Errors
}

// parseDocument reads the one YAML document in src. Places are lines and
// columns in file; with oneLine they are file alone.
func parseDocument(src []byte, file string, oneLine bool) (*value, Errors) {
	r := &reader{file: file, oneLine: oneLine}
	v, err := r.document(src)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	r.errs.sort()
	return v, r.errs
}

func (r *reader) document(src []byte) (*value, *Error) {
	if len(src) > maxSource {
		return nil, r.place(1, 1).fault("%d bytes; allowed: at most %d", len(src), maxSource)
	}
	if at := invalidUTF8(src); at >= 0 {
		line := 1 + strings.Count(string(src[:at]), "\n")
		col := 1 + utf8.RuneCount(src[strings.LastIndex(string(src[:at]), "\n")+1:at])
		return nil, r.place(line, col).fault("byte 0x%02x is not UTF-8; allowed: YAML in UTF-8", src[at])
	}
	tokens := lexer.Tokenize(string(src))
	if err := r.nesting(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, r.syntax(err)
	}
	var v *value
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case v != nil:
			return nil, r.at(doc.Body).fault("a second YAML document; allowed: one per file")
		default:
			v = r.value(doc.Body, "", 0)
		}
	}
	if v == nil {
		v = &value{at: r.place(1, 1)}
	}
	return v, nil
}

func invalidUTF8(src []byte) int {
	for i := 0; i < len(src); {
		c, size := utf8.DecodeRune(src[i:])
		if c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// nesting refuses depths that the recursive parser shouldn't be asked to
// follow: brackets, and entries opened on one line.
func (r *reader) nesting(tokens token.Tokens) *Error {
	depth, line, opened := 0, 0, 0
	for _, t := range tokens {
		if t.Position == nil {
			continue
		}
		if t.Position.Line != line {
			line, opened = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			opened++
		}
		if depth > maxNested || opened > maxNested {
			return r.place(line, t.Position.Column).fault("nested too deep; allowed: %d levels", maxNested)
		}
	}
	return nil
}

// syntax places the parser's error.
func (r *reader) syntax(err error) *Error {
	var located interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &located) {
		msg := oneLine(located.GetMessage())
		if t := located.GetToken(); t != nil && t.Position != nil {
			return r.place(t.Position.Line, t.Position.Column).fault("not YAML: %s", msg)
		}
		return r.place(1, 1).fault("not YAML: %s", msg)
	}
	return r.place(1, 1).fault("not YAML: %s", oneLine(err.Error()))
}

func (r *reader) place(line, col int) place {
	if r.oneLine {
		return place{file: r.file}
	}
	return place{r.file, max(line, 1), max(col, 1)}
}

// at returns the place where a node begins. The token of a block mapping is
// its first colon, so there the first key counts.
func (r *reader) at(n ast.Node) place {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return r.at(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return r.at(m.Key)
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return r.place(1, 1)
	}
	p := n.GetToken().Position
	return r.place(p.Line, p.Column)
}

// fail reports a fault of the value with that path.
func (r *reader) fail(n ast.Node, path, format string, args ...any) {
	fault := r.at(n).fault(format, args...)
	if path != "" {
		fault.Msg = path + ": " + fault.Msg
	}
	r.errs = append(r.errs, fault)
}

// value converts one node. What a scenario may not contain is reported and
// becomes null.
func (r *reader) value(n ast.Node, path string, depth int) *value {
	v := &value{at: r.at(n)}
	if depth > maxNested {
		r.fail(n, path, "nested too deep; allowed: %d levels", maxNested)
		return v
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.MappingNode:
		v.form = mapping
		for _, pair := range n.Values {
			r.pair(v, pair, path, depth)
		}
	case *ast.MappingValueNode:
		v.form = mapping
		r.pair(v, n, path, depth)
	case *ast.SequenceNode:
		v.form = list
		for i, item := range n.Values {
			v.items = append(v.items, r.value(item, join(path, strconv.Itoa(i)), depth+1))
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		v.form, v.bad = scalar, true
		r.fail(n, path, "%s: YAML anchors, aliases and tags are not supported; allowed: the value written out", quote(n.GetToken().Value))
	case *ast.LiteralNode:
		v.form, v.text, v.data = scalar, n.Value.Value, n.Value.Value
	case *ast.StringNode:
		v.form, v.text, v.data = scalar, n.Value, n.Value
	case *ast.BoolNode:
		v.form, v.text, v.data = scalar, strconv.FormatBool(n.Value), n.Value
	case *ast.IntegerNode:
		v.form, v.text, v.data = scalar, n.GetToken().Value, n.Value
	case *ast.FloatNode:
		v.form, v.text, v.data = scalar, n.GetToken().Value, n.Value
		if v.bad = math.IsInf(n.Value, 0); v.bad {
			r.fail(n, path, "%s is too large", quote(v.text))
		}
	default: // .inf, .nan
		v.form, v.bad = scalar, true
		r.fail(n, path, "%s is not supported in a scenario; allowed: mappings, lists, text, numbers, true and false", quote(fmt.Sprint(n)))
	}
	return v
}

// pair adds one key with its value to v.
func (r *reader) pair(v *value, pair *ast.MappingValueNode, path string, depth int) {
	key := pair.Key
	name, ok := "", false
	switch k := key.(type) {
	case *ast.StringNode:
		name, ok = k.Value, true
	case *ast.IntegerNode, *ast.BoolNode, *ast.FloatNode, *ast.NullNode:
		name, ok = k.GetToken().Value, true
	}
	if !ok {
		v.bad = true
		r.fail(key, path, "%s can't be a key; allowed: text", quote(fmt.Sprint(key)))
		return
	}
	at := r.at(key)
	if first := v.field(name); first != nil {
		r.fail(key, path, "the key %s is written twice, first at %s; allowed: once", quote(name), first.at)
		return
	}
	child := r.value(pair.Value, join(path, name), depth+1)
	if child.form == null || isBlock(pair.Value) {
		child.at = at // what is missing in a block is missed at the key that opens it
	}
	v.fields = append(v.fields, &field{name, at, child})
}

func isBlock(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.MappingNode:
		return !n.IsFlowStyle
	case *ast.MappingValueNode:
		return true
	case *ast.SequenceNode:
		return !n.IsFlowStyle
	}
	return false
}
