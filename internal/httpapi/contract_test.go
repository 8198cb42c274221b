package httpapi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

func contract(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func eachOperation(doc *openapi3.T, f func(path, method string, op *openapi3.Operation)) {
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			f(path, method, op)
		}
	}
}

func TestEveryOperationHasAnAccessRow(t *testing.T) {
	doc := contract(t)
	seen := map[string]bool{}
	eachOperation(doc, func(path, method string, op *openapi3.Operation) {
		seen[op.OperationID] = true
		a, ok := operations[op.OperationID]
		if !ok {
			t.Errorf("%s %s: %s has no row in the table", method, path, op.OperationID)
			return
		}
		if a.public == (len(a.roles) > 0) {
			t.Errorf("%s: either public or for some roles", op.OperationID)
		}
		inContract := op.Security != nil && len(*op.Security) == 0
		if a.public != inContract {
			t.Errorf("%s: public is %v in the table and %v in the contract", op.OperationID, a.public, inContract)
		}
		if strings.HasPrefix(path, "/v1/") && a.public {
			t.Errorf("%s %s needs no key", method, path)
		}
		if op.Responses.Default() == nil {
			t.Errorf("%s does not say what a problem looks like", op.OperationID)
		}
		if op.Summary == "" || len(op.Tags) != 1 {
			t.Errorf("%s has no summary or not one tag", op.OperationID)
		}
	})
	for id := range operations {
		if !seen[id] {
			t.Errorf("the table has %s, the contract has not", id)
		}
	}
}

func TestZeroAccessLetsNobodyIn(t *testing.T) {
	for _, r := range everyone {
		if (access{}).allows(r) {
			t.Errorf("%s", r)
		}
	}
}

// TestEveryProblemTypeHasAPage finds the types of problems and the codes of
// reasons in the sources of every package.
func TestEveryProblemTypeHasAPage(t *testing.T) {
	types := map[string]string{} // where each is used
	name := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	literal := func(e ast.Expr, at string) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil && name.MatchString(s) {
				types[s] = at
			}
		}
	}
	// Functions that take one, with the argument that it is.
	takes := map[string]int{"Errorf": 1, "FieldErrorf": 1, "reason": 0, "note": 0}
	// Constants that are codes: file.name=value.
	codes := regexp.MustCompile(`^(qc/.*\.[A-Z]|nifti/.*\.Type|fmri/.*\.[A-Z]\w*="\w+-)`)
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "/gen.go") || path == "qc/metrics.go" {
			return err
		}
		src, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				called := ""
				switch f := n.Fun.(type) {
				case *ast.Ident:
					called = f.Name
				case *ast.SelectorExpr:
					called = f.Sel.Name
				}
				if k, ok := takes[called]; ok && k < len(n.Args) {
					literal(n.Args[k], path)
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Code" || key.Name == "Type") {
					literal(n.Value, path)
				}
			case *ast.AssignStmt:
				if id, ok := n.Lhs[0].(*ast.Ident); ok && id.Name == "typ" {
					literal(n.Rhs[0], path)
				}
			case *ast.ValueSpec:
				for i, v := range n.Values {
					if l, ok := v.(*ast.BasicLit); ok && codes.MatchString(path+"."+n.Names[i].Name+"="+l.Value) {
						literal(v, path)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(types) < 150 {
		t.Errorf("only %d types found: the search is wrong", len(types))
	}
	for typ, at := range types {
		if _, ok := problemDocs[typ]; !ok {
			t.Errorf("%s: %q has no page", at, typ)
		}
	}
	for name, d := range problemDocs {
		if d.Title == "" || d.Text == "" {
			t.Errorf("%s: nothing to read", name)
		}
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	src, err := os.ReadFile("../../error.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code\w+ +Code += "([a-z-]+)"`).FindAllStringSubmatch(string(src), -1)
	if len(codes) < 8 {
		t.Fatalf("only %d codes found", len(codes))
	}
	for _, m := range codes {
		found := false
		for c := range statusOf {
			found = found || string(c) == m[1]
		}
		if !found {
			t.Errorf("code %q has no status", m[1])
		}
	}
}

// TestRequestBodiesRefuseUnknownFields: a misspelt name must not be lost.
func TestRequestBodiesRefuseUnknownFields(t *testing.T) {
	doc := contract(t)
	for _, name := range []string{"Metadata", "ScanUpdate", "NewKey", "NewSettings", "ScoreSettings", "AgePrior", "NewCalibration", "Shift", "Recalibration", "NewErasure", "NewReview", "HoldRequest", "CaseSearch", "SignIn", "NewWebhook", "NewDecoding", "NewDecodingRun", "NewWatch"} {
		ap := doc.Components.Schemas[name].Value.AdditionalProperties
		if ap.Has == nil || *ap.Has {
			t.Errorf("%s takes any field", name)
		}
	}
}

func TestDocsShowEverything(t *testing.T) {
	doc := contract(t)
	html, err := renderDocs(doc)
	if err != nil {
		t.Fatal(err)
	}
	page := string(html)
	eachOperation(doc, func(path, method string, op *openapi3.Operation) {
		if !strings.Contains(page, `id="`+op.OperationID+`"`) {
			t.Errorf("%s is not on the page", op.OperationID)
		}
	})
	for name := range doc.Components.Schemas {
		if !strings.Contains(page, `id="schema-`+name+`"`) {
			t.Errorf("schema %s is not on the page", name)
		}
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+m[1]+`"`) {
			t.Errorf("a link leads to %s, which is not there", m[1])
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", "src="} {
		if i := strings.Index(page, bad); i >= 0 {
			t.Errorf("the page holds %q: %s", bad, page[i:min(len(page), i+80)])
		}
	}
	if slices.Contains(strings.Fields(page), "ZgotmplZ") {
		t.Error("the template refused something")
	}
}

func TestProseEscapes(t *testing.T) {
	got := string(prose("a <b> **strong** `x < y`\n\nnext"))
	want := "<p>a &lt;b&gt; <strong>strong</strong> <code>x &lt; y</code></p>\n<p>next</p>\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
