package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// pageHead begins every page: no scripts, nothing from elsewhere. Dark as the
// clinicians' pages are, which link to them: a white page blinds a dark room.
const pageHead = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 :root { color-scheme: dark }
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #dbe2ea; background: #0b0e12 }
 h1 { font-size: 1.7rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid #29323c } h3 { margin: 2rem 0 .3rem; font-size: 1rem }
 code, pre { font: 14px/1.45 ui-monospace, monospace } pre { background: #1a2129; padding: .8rem; overflow-x: auto }
 table { border-collapse: collapse; width: 100%; margin: .4rem 0 } td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #29323c; font-size: 14px }
 td p { margin: 0 } .method { display: inline-block; min-width: 4.2em; font-weight: 700; color: #7cc0ff } .who { color: #94a1ae; font-size: 14px } a { color: #7cc0ff }
 @media print { :root { color-scheme: light } body, a, .method, .who { color: #000; background: #fff } pre { background: #eee } }
</style>
`

// contentPolicy lets a document load nothing but what more names.
func contentPolicy(more string) string {
	return "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" + more
}

var inlineStyle = regexp.MustCompile(`(?s)<style>(.*?)</style>`)

// stylePolicy allows a page the one style sheet that it holds, and pictures
// that it holds, by the sheet's hash.
func stylePolicy(html []byte) string {
	sum := sha256.Sum256(inlineStyle.FindSubmatch(html)[1])
	return contentPolicy("; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'")
}

// page is a rendered answer of the HTML operations.
type page struct {
	t    *template.Template
	data any
}

func (p page) visit(w http.ResponseWriter) error {
	var buf bytes.Buffer
	if err := p.t.Execute(&buf, p.data); err != nil {
		return err
	}
	return htmlPage(buf.Bytes()).visit(w)
}

func (p page) VisitGetProblemPageResponse(w http.ResponseWriter) error { return p.visit(w) }

type htmlPage []byte

func (p htmlPage) visit(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", stylePolicy(p))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(p)
	return err
}

func (p htmlPage) VisitGetDocsResponse(w http.ResponseWriter) error { return p.visit(w) }

func (s *Server) GetDocs(ctx context.Context, _ GetDocsRequestObject) (GetDocsResponseObject, error) {
	return htmlPage(s.docs), nil
}

type docSection struct {
	Name, Description string
	Operations        []docOperation
}

type docOperation struct {
	ID, Method, Path, Summary, Description, Who string
	Parameters                                  []docField
	Body                                        string
	Responses                                   []docField
}

type docField struct {
	Name, In, Type, Description string
	Required                    bool
}

type docSchema struct {
	Name, Type, Description string
	Fields                  []docField
}

type docProblem struct {
	Name string
	problemDoc
}

// renderDocs makes the contract a page, once.
func renderDocs(doc *openapi3.T) ([]byte, error) {
	data := struct {
		Title, Version, Description string
		Sections                    []docSection
		Schemas                     []docSchema
		Problems                    []docProblem
	}{Title: doc.Info.Title, Version: doc.Info.Version, Description: doc.Info.Description}

	for _, tag := range doc.Tags {
		sec := docSection{Name: tag.Name, Description: tag.Description}
		for _, path := range doc.Paths.InMatchingOrder() {
			item := doc.Paths.Value(path)
			for _, method := range []string{"POST", "GET", "PUT", "PATCH", "DELETE", "HEAD"} {
				if op := item.GetOperation(method); op != nil && slices.Contains(op.Tags, tag.Name) {
					sec.Operations = append(sec.Operations, describe(path, method, item, op))
				}
			}
		}
		slices.SortStableFunc(sec.Operations, func(a, b docOperation) int { return strings.Compare(a.Path, b.Path) })
		data.Sections = append(data.Sections, sec)
	}
	for _, name := range sorted(doc.Components.Schemas) {
		sch := doc.Components.Schemas[name].Value
		d := docSchema{Name: name, Description: sch.Description}
		for _, f := range sorted(sch.Properties) {
			ref := sch.Properties[f]
			d.Fields = append(d.Fields, docField{Name: f, Type: typeName(ref), Description: ref.Value.Description, Required: slices.Contains(sch.Required, f)})
		}
		if len(d.Fields) == 0 {
			d.Type = typeName(&openapi3.SchemaRef{Value: sch})
		}
		data.Schemas = append(data.Schemas, d)
	}
	for _, name := range sorted(problemDocs) {
		data.Problems = append(data.Problems, docProblem{name, problemDocs[name]})
	}
	var buf bytes.Buffer
	if err := docsPage.Execute(&buf, data); err != nil {
		return nil, fmt.Errorf("httpapi: docs page: %w", err)
	}
	return buf.Bytes(), nil
}

func describe(path, method string, item *openapi3.PathItem, op *openapi3.Operation) docOperation {
	d := docOperation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, Description: op.Description}
	a := operations[op.OperationID]
	if a.public {
		d.Who = "no key needed"
	} else {
		who := []string{}
		for _, r := range a.roles {
			who = append(who, string(r))
		}
		if !slices.Contains(a.roles, admin) {
			who = append(who, string(admin))
		}
		d.Who = "roles: " + strings.Join(who, ", ")
	}
	for _, ref := range slices.Concat(item.Parameters, op.Parameters) {
		p := ref.Value
		d.Parameters = append(d.Parameters, docField{Name: p.Name, In: p.In, Type: typeName(p.Schema), Description: p.Description, Required: p.Required})
	}
	if op.RequestBody != nil {
		d.Body = contents(op.RequestBody.Value.Content)
	}
	for _, status := range sorted(op.Responses.Map()) {
		res := op.Responses.Value(status).Value
		if status == "default" {
			continue // problems, said once at the top
		}
		d.Responses = append(d.Responses, docField{Name: status, Type: contents(res.Content), Description: val(res.Description)})
	}
	return d
}

func contents(c openapi3.Content) string {
	var out []string
	for _, mt := range sorted(c) {
		s := mt
		if ref := c[mt].Schema; ref != nil && ref.Ref != "" {
			s += ": " + typeName(ref)
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// typeName is short: a schema's name, or its JSON type with what bounds it.
func typeName(ref *openapi3.SchemaRef) string {
	if ref == nil {
		return ""
	}
	if name, ok := strings.CutPrefix(ref.Ref, "#/components/schemas/"); ok {
		return name
	}
	s := ref.Value
	switch {
	case len(s.Enum) > 0:
		var names []string
		for _, e := range s.Enum {
			names = append(names, fmt.Sprint(e))
		}
		return strings.Join(names, " | ")
	case s.Type.Is("array"):
		return "list of " + typeName(s.Items)
	case s.Type == nil:
		return "any"
	}
	t := strings.Join(s.Type.Slice(), " ")
	if s.Format != "" {
		t += " (" + s.Format + ")"
	}
	if s.Min != nil && s.Max != nil {
		t += fmt.Sprintf(", %g to %g", *s.Min, *s.Max)
	}
	if s.Nullable {
		t += " or null"
	}
	return t
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var docsPage = template.Must(template.New("docs").Funcs(template.FuncMap{"prose": prose, "kind": kind}).Parse(pageHead + `
<title>{{.Title}} API</title>
<h1>{{.Title}} API v{{.Version}}</h1>
<p><a href="/openapi.yaml">openapi.yaml</a> &middot; <a href="#schemas">Documents</a> &middot; <a href="#problems">Problems</a></p>
{{prose .Description}}
{{range .Sections}}<h2 id="{{.Name}}">{{.Description}}</h2>
{{range .Operations}}<h3 id="{{.ID}}"><span class="method">{{.Method}}</span> <code>{{.Path}}</code></h3>
<div>{{.Summary}} <span class="who">({{.Who}})</span></div>
{{prose .Description}}
{{if .Parameters}}<table>{{range .Parameters}}<tr><td><code>{{.Name}}</code></td><td>{{.In}}{{if .Required}}, required{{end}}</td><td>{{kind .Type}}</td><td>{{prose .Description}}</td></tr>{{end}}</table>{{end}}
{{if .Body}}<div>Body: {{kind .Body}}</div>{{end}}
<table>{{range .Responses}}<tr><td><code>{{.Name}}</code></td><td>{{.Description}}</td><td>{{kind .Type}}</td></tr>{{end}}</table>
{{end}}{{end}}
<h2 id="schemas">Documents</h2>
{{range .Schemas}}<h3 id="schema-{{.Name}}">{{.Name}}{{with .Type}} <span class="who">{{kind .}}</span>{{end}}</h3>
{{prose .Description}}
{{if .Fields}}<table>{{range .Fields}}<tr><td><code>{{.Name}}</code></td><td>{{if .Required}}always{{end}}</td><td>{{kind .Type}}</td><td>{{prose .Description}}</td></tr>{{end}}</table>{{end}}
{{end}}
<h2 id="problems">Problems</h2>
<table>{{range .Problems}}<tr><td><a href="/problems/{{.Name}}"><code>{{.Name}}</code></a></td><td>{{.Title}}</td></tr>{{end}}</table>
`))

// schemaName finds the schemas in a type: they alone are capitalised words of
// letters.
var schemaName = regexp.MustCompile(`\b[A-Z][A-Za-z]+\b`)

// kind is a type in which schemas are links.
func kind(t string) template.HTML {
	return template.HTML(schemaName.ReplaceAllString(template.HTMLEscapeString(t), `<a href="#schema-$0">$0</a>`))
}

// prose shows the little markup that the contract uses: paragraphs, **strong**
// and backquoted code.
func prose(text string) template.HTML {
	var out strings.Builder
	for para := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if para == "" {
			continue
		}
		html := template.HTMLEscapeString(para)
		for _, m := range []struct{ mark, tag string }{{"**", "strong"}, {"`", "code"}} {
			parts := strings.Split(html, m.mark)
			for n := 1; n < len(parts); n += 2 {
				parts[n] = "<" + m.tag + ">" + parts[n] + "</" + m.tag + ">"
			}
			html = strings.Join(parts, "")
		}
		out.WriteString("<p>" + html + "</p>\n")
	}
	return template.HTML(out.String())
}
