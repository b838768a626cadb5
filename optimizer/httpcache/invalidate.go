package httpcache

import (
	"net/http"
	"net/url"
	"strings"
)

// Safe reports whether the method is safe (RFC 9110 §9.2.1). An unknown method
// isn't known to be.
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// Invalidates reports whether a response with this status to this method
// invalidates the target's stored responses (§4.4): an unsafe method that didn't fail.
func Invalidates(method string, status int) bool {
	return !Safe(method) && status >= 200 && status < 400
}

// InvalidatedTargets lists the further request targets (path and query) that such
// a response invalidates: Location and Content-Location, where they name the same
// host. scheme and host are those of the client's request, target its path and query.
func InvalidatedTargets(scheme, host, target string, h http.Header) []string {
	base, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	base.Scheme, base.Host = scheme, host
	var targets []string
	for _, name := range []string{"Location", "Content-Location"} {
		ref, err := url.Parse(h.Get(name))
		if err != nil || h.Get(name) == "" {
			continue
		}
		abs := base.ResolveReference(ref)
		if abs.Scheme != scheme || !strings.EqualFold(abs.Host, host) {
			continue // §4.4: another origin has no say here
		}
		if t := abs.RequestURI(); t != target {
			targets = append(targets, t)
		}
	}
	return targets
}

// InvalidatedBy lists the resources, as host and path, that a response names in
// Link with the relation inv-by: those whose invalidation makes it obsolete. host and
// target are those of the response's own request.
func InvalidatedBy(scheme, host, target string, h http.Header) []string {
	base, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	base.Scheme, base.Host = scheme, host
	var resources []string
	for _, line := range h["Link"] {
		for rest := line; ; {
			_, after, ok := strings.Cut(rest, "<")
			if !ok {
				break
			}
			reference, parameters, ok := strings.Cut(after, ">")
			if !ok {
				break
			}
			// What follows, up to the next reference, are this one's parameters.
			rest = parameters
			if i := strings.IndexByte(parameters, '<'); i >= 0 {
				parameters = parameters[:i]
			}
			if u, err := url.Parse(reference); err == nil && hasRelation(parameters, "inv-by") {
				u = base.ResolveReference(u)
				resources = append(resources, strings.ToLower(u.Host)+u.RequestURI())
			}
		}
	}
	return resources
}

// hasRelation reports whether link parameters name the relation (RFC 8288 §3.3).
func hasRelation(parameters, relation string) bool {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.Trim(parameter, " \t,"), "=")
		if !strings.EqualFold(strings.TrimRight(name, " \t"), "rel") {
			continue
		}
		for r := range strings.FieldsSeq(strings.Trim(value, "\" \t")) {
			if strings.EqualFold(r, relation) {
				return true
			}
		}
	}
	return false
}
