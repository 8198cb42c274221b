package anatomy

import (
	"strings"
	"testing"
)

func TestStructures(t *testing.T) {
	for i, s := range Structures {
		if int(s.Class) != i {
			t.Errorf("%s stands at %d but says class %d", s.Name, i, s.Class)
		}
		if i > 1 && s.Label <= Structures[i-1].Label {
			t.Errorf("%s: labels must ascend", s.Name)
		}
		m := Structures[s.Mirror]
		if m.Mirror != s.Class {
			t.Errorf("%s mirrors %s, which mirrors class %d", s.Name, m.Name, m.Mirror)
		}
		if s.Side == Midline {
			if s.Mirror != s.Class {
				t.Errorf("%s is on the midline but mirrors %s", s.Name, m.Name)
			}
		} else if strings.TrimPrefix(s.Name, "Left-") != strings.TrimPrefix(m.Name, "Right-") &&
			strings.TrimPrefix(s.Name, "Right-") != strings.TrimPrefix(m.Name, "Left-") {
			t.Errorf("%s mirrors %s", s.Name, m.Name)
		}
		if got, ok := ByLabel(s.Label); !ok || got.Class != s.Class {
			t.Errorf("ByLabel(%d) = %v, %v", s.Label, got, ok)
		}
		if got, ok := ByName(s.Name); !ok || got.Class != s.Class {
			t.Errorf("ByName(%q) = %v, %v", s.Name, got, ok)
		}
	}
}
