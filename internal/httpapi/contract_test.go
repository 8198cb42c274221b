package httpapi

import (
	"os"
	"regexp"
	"slices"
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

// TestEveryProblemTypeHasAPage finds the types in this package's sources and
// in the store's.
func TestEveryProblemTypeHasAPage(t *testing.T) {
	const name, dashed = `"([a-z0-9]+(?:-[a-z0-9]+)*)"`, `"([a-z0-9]+(?:-[a-z0-9]+)+)"`
	problem := regexp.MustCompile(`(?:Errorf\([^"\n]*?|Type: +|typ +:?= +)` + dashed)
	for dir, more := range map[string]struct {
		find  string // codes of reasons, beside problems
		least int
	}{
		".": {``, 20}, "../..": {`\bCode: ` + name, 2}, "../store": {``, 10}, "../blob": {``, 1}, "../resumable": {``, 5},
		"../qc":       {`(?m)^\t[A-Z]\w+ += ` + name + `$|^\t\{\w+, (?:true|false), [^"\n]+` + name, 25},
		"../norm":     {`\bCode: ` + name + `|\breason\(` + name, 8},
		"../model":    {``, 1},
		"../timeline": {`\bnote\(` + name, 8},
		"../jobs":     {`\bCode: ` + name, 4},
		"../segment":  {`\bCode: ` + name, 0},
		"../pipeline": {`\bCode: ` + name, 1},
		"../fmri":     {`(?m)^(?:\t|const )[A-Z]\w+ += ` + dashed, 11},
	} {
		finds := []*regexp.Regexp{problem}
		if more.find != "" {
			finds = append(finds, regexp.MustCompile(more.find))
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") || e.Name() == "gen.go" || dir == "../qc" && e.Name() == "metrics.go" {
				continue
			}
			src, err := os.ReadFile(dir + "/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			for _, find := range finds {
				for _, m := range find.FindAllStringSubmatch(string(src), -1) {
					found++
					typ := strings.Join(m[1:], "") // one of the alternatives
					if _, ok := problemDocs[typ]; !ok {
						t.Errorf("%s/%s: %q has no page", dir, e.Name(), typ)
					}
				}
			}
		}
		if found < more.least {
			t.Errorf("%s: only %d types found: the search is wrong", dir, found)
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
