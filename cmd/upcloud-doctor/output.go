package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// Forms of what is printed.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func print(out io.Writer, form string, report *doctor.Report) error {
	if form == outputJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	var text strings.Builder
	for _, kind := range doctor.Kinds {
		printKind(&text, kind, "", chosen(report.Findings, kind, false))
		printKind(&text, kind, ", and that do not say whose they are", chosen(report.Findings, kind, true))
	}
	if len(report.Undecided) > 0 {
		fmt.Fprintf(&text, "Too early to judge, not counted: %d\n", len(report.Undecided))
		printUndecided(&text, report.Undecided)
		text.WriteString("\n")
	}
	switch found, left := len(report.Findings), report.Left(); {
	case found == 0:
		text.WriteString("Nothing was left behind, and nothing is missed.\n")
	case left == 0:
		text.WriteString("Nothing is left.\n")
	case left < found:
		fmt.Fprintf(&text, "%d findings, %d of them left.\n", found, left)
	default:
		fmt.Fprintf(&text, "Findings: %d\n", found)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// chosen are the findings of a kind; those that nobody claims are told apart where they can be removed.
func chosen(all []*doctor.Finding, kind doctor.Kind, unclaimed bool) []*doctor.Finding {
	var found []*doctor.Finding
	for _, finding := range all {
		if finding.Kind == kind && (finding.Removable() && finding.Unclaimed()) == unclaimed {
			found = append(found, finding)
		}
	}
	return found
}

func printKind(out io.Writer, kind doctor.Kind, addition string, findings []*doctor.Finding) {
	if len(findings) == 0 {
		return
	}
	fmt.Fprintf(out, "%s%s: %d\n", kind.Title(), addition, len(findings))
	switch kind {
	case doctor.OrphanVolume, doctor.UnfinishedCopy, doctor.OrphanSnapshot:
		printStorages(out, findings)
	case doctor.UnexplainedAttachment:
		printTable(out, "STORAGE\tTITLE\tSERVER\tNOTE", findings, func(f *doctor.Finding) []string {
			return []string{f.StorageID, f.Title, strings.Join(f.ServerIDs, " "), f.Note}
		})
	case doctor.OrphanBalancer, doctor.OrphanComponents, doctor.UnusedGroup, doctor.OrphanCertificate:
		printBalancers(out, findings)
	case doctor.TwinBalancer, doctor.StuckBalancer, doctor.LostBalancer:
		printTable(out, "OBJECT\tLOAD BALANCER\tNAME\tSTATE\tAGE", findings, func(f *doctor.Finding) []string {
			return []string{f.Object, f.LoadBalancerID, f.Title, f.State, age(f)}
		})
	default:
		printTable(out, "OBJECT\tSTORAGE\tNOTE", findings, func(f *doctor.Finding) []string {
			return []string{f.Object, f.StorageID, f.Note}
		})
	}
	fmt.Fprintf(out, "  What to do: %s\n\n", kind.Remedy())
}

// printUndecided prints what is too young: all of it is about storages, or all about load balancers.
func printUndecided(out io.Writer, findings []*doctor.Finding) {
	if findings[0].StorageID == "" {
		printBalancers(out, findings)
		return
	}
	printStorages(out, findings)
}

func printStorages(out io.Writer, findings []*doctor.Finding) {
	printTable(out, "STORAGE\tTITLE\tSIZE\tZONE\tAGE\tNOTE", findings, func(f *doctor.Finding) []string {
		return []string{f.StorageID, f.Title, fmt.Sprintf("%d GiB", f.SizeGiB), f.Zone, age(f), note(f)}
	})
}

// printBalancers prints load balancers and certificate bundles.
func printBalancers(out io.Writer, findings []*doctor.Finding) {
	printTable(out, "ID\tNAME\tAGE\tNOTE", findings, func(f *doctor.Finding) []string {
		return []string{cmp.Or(f.LoadBalancerID, f.CertificateID), f.Title, age(f), note(f)}
	})
}

func age(f *doctor.Finding) string {
	if f.Created == nil {
		return "unknown"
	}
	return duration.HumanDuration(time.Since(*f.Created))
}

// note tells what is known of a finding and what became of it.
func note(f *doctor.Finding) string {
	var parts []string
	if f.Note != "" {
		parts = append(parts, f.Note)
	}
	switch {
	case f.Outcome == doctor.OutcomeFailed:
		parts = append(parts, "not removed: "+f.Error)
	case f.Kept != "":
		parts = append(parts, "kept: "+f.Kept)
	case f.Outcome != "":
		parts = append(parts, f.Outcome)
	}
	return strings.Join(parts, "; ")
}

// printable keeps what other people wrote into titles from steering the terminal.
func printable(cell string) string {
	cell = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, cell)
	if cell = strings.TrimSpace(cell); cell == "" {
		return "-"
	}
	return cell
}

func printTable(out io.Writer, header string, findings []*doctor.Finding, row func(*doctor.Finding) []string) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  "+header)
	for _, finding := range findings {
		cells := row(finding)
		for i, cell := range cells {
			cells[i] = printable(cell)
		}
		fmt.Fprintln(table, "  "+strings.Join(cells, "\t"))
	}
	table.Flush()
}
