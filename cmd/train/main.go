// Command train teaches and evaluates the segmentation network.
//
//	train run        start or resume training from label maps
//	train average    write the mean of two networks
//	train evaluate   print the accuracy of weights on held-out maps and real heads
//	train stability  print how volumes change when a head is scanned or stored otherwise
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
)

type cli struct {
	Run       runCmd       `cmd:"" help:"Start or resume training."`
	Evaluate  evaluateCmd  `cmd:"" help:"Print the accuracy of weights on held-out maps and, where present, on real labelled heads."`
	Average   averageCmd   `cmd:"" help:"Write the mean of networks that learnt on from each other."`
	Stability stabilityCmd `cmd:"" help:"Print how volumes change when a head is scanned or stored otherwise."`
}

func main() {
	var c cli
	k := kong.Parse(&c, kong.Name("train"), kong.Description("Train the segmentation network on a plain CPU from label maps, by synthesis."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k.BindTo(ctx, (*context.Context)(nil))
	k.FatalIfErrorf(k.Run())
}

// heldOut maps choose among weights; the network never learns from them.
var heldOut = []string{"04", "08", "12", "17"}

func trainingMaps() []string {
	var names []string
	for i := 1; i <= 20; i++ {
		name := fmt.Sprintf("%02d", i)
		held := false
		for _, h := range heldOut {
			held = held || h == name
		}
		if !held {
			names = append(names, name)
		}
	}
	return names
}

// sampler adapts a generator of synthetic heads.
type sampler struct{ *synth.Generator }

func (s sampler) At(i uint64) train.Sample {
	x := s.Sample(i)
	return train.Sample{Image: x.Image, Labels: x.Labels, AtMM: x.Drawn.AtMM, Map: x.Drawn.Map}
}

// mixed draws two samples in a row from each of its kinds of heads, so that each
// of two that take turns sees every kind.
type mixed []train.Sampler

func (m mixed) At(i uint64) train.Sample { return m[i/2%uint64(len(m))].At(i) }

type data struct {
	loaded map[string]*synth.Maps // by their names
	Maps   string                 `help:"Folder of the label maps (training_seg_01.nii.gz to 20)." default:"../shared/data/labelmaps" type:"existingdir" env:"NEUROSCREEN_LABELMAPS"`
}

// load reads maps once.
func (d *data) load(names ...string) (*synth.Maps, error) {
	key := strings.Join(names, " ")
	if m, ok := d.loaded[key]; ok {
		return m, nil
	}
	m, err := synth.LoadMaps(d.Maps, names...)
	if err != nil {
		return nil, err
	}
	if d.loaded == nil {
		d.loaded = map[string]*synth.Maps{}
	}
	d.loaded[key] = m
	return m, nil
}

func (d *data) sampler(names []string, arch segment.Architecture, cfg config, seed uint64) (train.Sampler, error) {
	maps, err := d.load(names...)
	if err != nil {
		return nil, err
	}
	return sampler{synth.New(maps, cfg(arch.Shape, arch.VoxelMM), seed)}, nil
}

// learning returns what draws the even and the odd samples that a stage learns
// from: for each head that is as clinics send them some that are anything.
func (d *data) learning(maps []string, s stage, arch segment.Architecture, seed uint64, anything int) (learn [2]train.Sampler, err error) {
	shown := arch
	if s.crop != [3]int{} {
		shown.Shape = s.crop
	}
	for i := range learn {
		var kinds mixed
		for _, of := range []config{synth.Default, synth.Ordinary} {
			draws := s.draws(of)
			if s.crop != [3]int{} {
				draws = synth.Crop(draws, arch.Shape)
			}
			heads, err := d.sampler(maps, shown, draws, seed)
			if err != nil {
				return learn, err
			}
			kinds = append(kinds, heads)
		}
		learn[i] = append(slices.Repeat(kinds[:1], anything), kinds[1])
	}
	return learn, nil
}

// kind of whole heads.
type kind struct {
	draws   config
	voxelMM float64
}

// heads of some maps, drawn as one kind after the other.
func (d *data) heads(maps []string, seed uint64, kinds ...kind) (train.Heads, error) {
	var h train.Heads
	for i, k := range kinds {
		grid := train.HeadGrid(k.voxelMM)
		s, err := d.sampler(maps, segment.Architecture{Shape: grid.Shape, VoxelMM: k.voxelMM}, k.draws, seed+uint64(i)<<32)
		if err != nil {
			return nil, err
		}
		h = append(h, train.HeadKind{Sampler: s, Grid: grid})
	}
	return h, nil
}

type runCmd struct {
	data
	Stage    string        `help:"Network to train: ${enum}." enum:"locate,whole,half,inner" default:"whole"`
	State    string        `help:"Folder for each stage's checkpoint, log and candidate weights, and for what relates the maps; training resumes from it." default:"/var/tmp/neuroscreen-train"`
	Steps    int           `help:"Length of the learning-rate schedule." default:"20000"`
	Rate     float64       `help:"Highest learning rate." default:"0.002"`
	From     string        `help:"Weights file to start with; \"default\" is what is built into the program. It may be of a narrower network than --base. A lower --rate suits it."`
	Like     string        `help:"Network in --from to start with, when it is another stage's: ${enum}." enum:",locate,whole,half,inner" default:""`
	Seed     uint64        `default:"1"`
	Base     int           `help:"Channels at full resolution; 0 is the product's width."`
	Wide     int           `help:"Levels below full resolution with twice as many channels; -1 is the product's number." default:"-1"`
	Below    bool          `help:"Let the logits hear the level below full resolution too, where those of the product's network don't."`
	Borders  []int         `help:"Teach a perceptron with hidden layers of these sizes to read again where the network of --from, which stays as it is, is in doubt."`
	Anything int           `help:"Heads of any kind for each ordinary one that is learnt from." default:"1"`
	CE       float64       `name:"cross-entropy" help:"Weight of the cross-entropy beside a Dice loss of weight 1." default:"0.5"`
	Held     bool          `name:"sizes-held" help:"Hold the denominators of the Dice loss constant: structures then get what is likelier theirs than not, instead of all that is theirs with a probability of half their Dice."`
	Whole    bool          `name:"whole-box" help:"Learn from whole boxes, where a stage learns from parts of them: steps are as much slower, and see the borders that the product's boxes have."`
	Average  float64       `help:"Decay a step of the average of weights that is kept; .9998 averages over five times as many steps as .999." default:"0.999"`
	Threads  int           `help:"Threads; 0 uses every core." default:"0"`
	Every    int           `help:"Steps between evaluations on the held-out maps." default:"1000"`
	Validate int           `help:"Held-out heads per evaluation." default:"16"`
	For      time.Duration `help:"Stop after this time; 0 runs to the end of the schedule." default:"0"`
}

// config says what heads to draw in a box.
type config = func(shape [3]int, voxelMM float64) synth.Config

// stage is one of the product's networks and what it learns from.
type stage struct {
	segment.Architecture
	draws  func(config) config // how its heads differ from whole ones
	judged []anatomy.Class     // the structures that it is for
	crop   [3]int              // the part of its box that a sample shows; 0 is all of it
}

var stages = func() map[string]stage {
	midline := []anatomy.Class{}
	for _, c := range anatomy.Brain {
		if anatomy.Structures[c].Side == anatomy.Midline {
			midline = append(midline, c)
		}
	}
	inferiorHorn, _ := anatomy.ByName("Left-Inf-Lat-Vent")
	ventralDC, _ := anatomy.ByName("Left-VentralDC")
	arch := func(base, depth, x, y, z int, mm float64) segment.Architecture {
		return segment.Architecture{Inputs: 4, Base: base, Depth: depth, Shape: [3]int{x, y, z}, VoxelMM: mm}
	}
	half := arch(8, 4, 80, 176, 144, 1)
	half.Wide, half.Below = 1, true
	inner := arch(16, 4, 64, 96, 80, 1)
	inner.Wide, inner.Below = 1, true
	return map[string]stage{
		"locate": {arch(8, 3, 40, 48, 40, 4), synth.Locate, anatomy.Brain, [3]int{}},
		"whole":  {arch(8, 4, 80, 96, 80, 2), func(c config) config { return c }, anatomy.Brain, [3]int{}},
		"half":   {half, synth.Half, slices.Concat(anatomy.Half, midline), [3]int{80, 96, 80}},
		"inner":  {inner, synth.Inner, append(slices.Clone(anatomy.Inner), inferiorHorn.Class, ventralDC.Class), [3]int{}},
	}
}()

// record is one line of the log.
type record struct {
	Step      int     `json:"step"`
	Seconds   float64 `json:"seconds"` // since this process started
	Rate      float64 `json:"rate,omitempty"`
	Loss      float64 `json:"loss,omitempty"`
	Soft      float64 `json:"soft_dice,omitempty"`     // of all classes, over the training heads since the last line
	HeldMean  float64 `json:"held_out_dice,omitempty"` // of the structures that the network is for
	HeldHippo float64 `json:"held_out_dice_hippocampus,omitempty"`
}

func (c *runCmd) Run(ctx context.Context) error {
	threads := c.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	stage := stages[c.Stage]
	state := c.Stage
	if c.Whole || len(c.Borders) > 0 {
		stage.crop = [3]int{}
	}
	if len(c.Borders) > 0 {
		state += "-borders"
	}
	arch := stage.Architecture
	if c.Base > 0 {
		arch.Base = c.Base
	}
	if c.Wide >= 0 {
		arch.Wide = c.Wide
	}
	arch.Below = arch.Below || c.Below
	if c.Anything < 1 {
		return errors.New("--anything is the number of heads of any kind for each ordinary one, at least 1")
	}
	if c.Average <= 0 || c.Average >= 1 {
		return errors.New("--average is a decay: above 0 and below 1")
	}
	maps, err := c.load(trainingMaps()...)
	if err != nil {
		return err
	}
	maps.KeepIn(c.State)
	c.State = filepath.Join(c.State, state)
	if err := os.MkdirAll(c.State, 0o755); err != nil {
		return err
	}
	learn, err := c.learning(trainingMaps(), stage, arch, c.Seed, c.Anything)
	if err != nil {
		return err
	}
	held, err := c.sampler(heldOut, arch, stage.draws(synth.Evaluation), 1)
	if err != nil {
		return err
	}
	checkpoint := filepath.Join(c.State, "checkpoint")
	t, err := c.learner(stage, arch, threads, learn, checkpoint)
	if err != nil {
		return err
	}
	logFile, err := os.OpenFile(filepath.Join(c.State, "log.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	start := time.Now()
	write := func(r record) error {
		r.Seconds = time.Since(start).Seconds()
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
		_, err = logFile.Write(append(line, '\n'))
		return err
	}

	const window = 100
	var loss, soft, steps float64 // since the last line
	for t.Steps() < c.Steps && ctx.Err() == nil && (c.For == 0 || time.Since(start) < c.For) {
		s := t.Step()
		steps++
		loss += s.Value
		for _, d := range s.Dice {
			soft += d / float64(len(s.Dice))
		}
		if s.Step%window == 0 {
			if err := write(record{Step: s.Step, Rate: s.LearningRate, Loss: loss / steps, Soft: soft / steps}); err != nil {
				return err
			}
			loss, soft, steps = 0, 0, 0
		}
		if s.Step%c.Every == 0 || s.Step == c.Steps {
			if err := c.evaluate(ctx, t, threads, held, write); err != nil && ctx.Err() == nil {
				return err
			}
			if err := t.Save(checkpoint); err != nil {
				return err
			}
		}
	}
	return t.Save(checkpoint)
}

// learner is a run of a network or of its borders.
type learner interface {
	Load(checkpoint string) error
	Save(checkpoint string) error
	Steps() int
	Step() train.StepResult
	Model() *segment.Model // of the averaged weights
}

// learner starts a run, or resumes it from its checkpoint.
func (c *runCmd) learner(s stage, arch segment.Architecture, threads int, learn [2]train.Sampler, checkpoint string) (learner, error) {
	start, err := c.start()
	if err != nil {
		return nil, err
	}
	var t learner
	var network *train.Trainer
	if len(c.Borders) > 0 {
		if start == nil {
			return nil, errors.New("--borders needs the weights whose borders are to be read: --from")
		}
		if start.Architecture != arch {
			return nil, fmt.Errorf("--borders takes the stage's own network, of %+v, not %+v", arch, start.Architecture)
		}
		if err := (&segment.Borders{Hidden: c.Borders}).Check(start.Architecture); err != nil {
			return nil, err
		}
		t = train.NewBorders(train.BordersConfig{
			Hidden: c.Borders, Seed: c.Seed, Anything: c.Anything, Steps: c.Steps, LearningRate: c.Rate, Maps: trainingMaps(), HeldOut: heldOut,
		}, start, threads, learn[0], learn[1])
	} else {
		network = train.New(train.Config{
			Arch: arch, Crop: s.crop, Seed: c.Seed, Anything: c.Anything, CrossEntropy: c.CE, SizesHeld: c.Held, Average: c.Average, Steps: c.Steps, LearningRate: c.Rate, Maps: trainingMaps(), HeldOut: heldOut,
		}, threads, learn[0], learn[1])
		t = network
	}
	switch err := t.Load(checkpoint); {
	case err == nil:
		fmt.Printf("resumed at step %d of %d\n", t.Steps(), c.Steps)
		return t, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case start != nil && network != nil:
		return t, network.From(start, c.Like)
	}
	return t, nil
}

// start is the network that --from names; nil where it names none.
func (c *runCmd) start() (*segment.Model, error) {
	if c.From == "" {
		return nil, nil
	}
	var files []string
	if c.From != "default" {
		files = []string{c.From}
	}
	w, err := chosen{Weights: files}.read()
	if err != nil {
		return nil, err
	}
	m := *network(w, cmp.Or(c.Like, c.Stage))
	if m == nil {
		return nil, fmt.Errorf("%s holds no network of stage %s", c.From, cmp.Or(c.Like, c.Stage))
	}
	return m, nil
}

// evaluate measures the averaged weights as they would ship and keeps those
// with the best mean Dice on the held-out maps.
func (c *runCmd) evaluate(ctx context.Context, t learner, threads int, held train.Sampler, write func(record) error) error {
	w := &segment.Weights{}
	*network(w, c.Stage) = t.Model()
	w, err := asShipped(w)
	if err != nil {
		return err
	}
	m := *network(w, c.Stage)
	sc, err := train.EvaluateBoxes(ctx, m, threads, held, c.Validate, stages[c.Stage].judged)
	if err != nil {
		return err
	}
	if err := write(record{Step: t.Steps(), HeldMean: sc.Mean, HeldHippo: sc.Hippocampus}); err != nil {
		return err
	}
	best := filepath.Join(c.State, "best.weights")
	if old, err := readWeights(best); err == nil && (*network(old, c.Stage)).Provenance.Evaluation["held_out_dice"] >= sc.Mean {
		return nil
	}
	m.Provenance.Evaluation = heldOutScores(c.Validate, sc)
	return writeWeights(best, w)
}
