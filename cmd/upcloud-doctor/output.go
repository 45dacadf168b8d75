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
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// Forms of what is printed.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

func print(out io.Writer, form string, report *doctor.Report) error {
	switch form {
	case outputJSON:
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	case outputYAML:
		text, err := yaml.Marshal(report)
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	}
	var text strings.Builder
	for _, kind := range doctor.Kinds {
		printKind(&text, kind, "", chosen(report.Findings, kind, false))
		printKind(&text, kind, ", and that do not say whose they are", chosen(report.Findings, kind, true))
	}
	printApart(&text, "Kept on purpose, or by a backup tool, not counted", report.Kept)
	printApart(&text, "Too early to judge, not counted", report.Undecided)
	if report.Stopped != "" && len(report.Findings) > 0 {
		fmt.Fprintf(&text, "Nothing is quarantined or removed without a plan: %s.\n\n", report.Stopped)
	}
	switch found, left := len(report.Findings), report.Left(); {
	case found == 0:
		text.WriteString("Nothing was left behind, and nothing is missed.\n")
	case left == 0:
		text.WriteString("Nothing is left.\n")
	case left < found:
		fmt.Fprintf(&text, "%d findings, %d of them left%s.\n", found, left, costs(report.Findings))
	default:
		fmt.Fprintf(&text, "Findings: %d%s\n", found, costs(report.Findings))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// costs is what all findings together cost a month, where the price list says.
func costs(findings []*doctor.Finding) string {
	sum := 0.0
	for _, f := range findings {
		sum += f.CreditsPerMonth
	}
	if sum == 0 {
		return ""
	}
	return fmt.Sprintf(", %.0f credits a month", sum)
}

// chosen are the findings of a kind; those without a claim are listed apart.
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
	case doctor.WantedAgain:
		printRows(out, findings)
	case doctor.OrphanVolume, doctor.UnfinishedCopy, doctor.OrphanSnapshot, doctor.ScheduledBackup:
		printStorages(out, findings)
	case doctor.UnexplainedAttachment:
		printTable(out, "STORAGE\tTITLE\tSERVER\tNOTE", findings, func(f *doctor.Finding) []string {
			return []string{f.StorageID, f.Title, strings.Join(f.ServerIDs, " "), f.Note}
		})
	case doctor.OrphanBalancer, doctor.OrphanComponents, doctor.UnusedGroup, doctor.OrphanCertificate:
		printBalancers(out, findings)
	case doctor.OtherClassBalancer, doctor.TwinBalancer, doctor.StuckBalancer, doctor.LostBalancer:
		printTable(out, "OBJECT\tLOAD BALANCER\tNAME\tSTATE\tAGE", findings, func(f *doctor.Finding) []string {
			return []string{f.Object, f.LoadBalancerID, f.Title, f.State, age(f)}
		})
	case doctor.DeadRoute, doctor.UnusedRouter:
		printTable(out, "ROUTER\tNAME\tNOTE", findings, func(f *doctor.Finding) []string { return []string{f.RouterID, f.Title, f.Note} })
	default:
		printTable(out, "OBJECT\tSTORAGE\tNOTE", findings, func(f *doctor.Finding) []string {
			return []string{f.Object, f.StorageID, f.Note}
		})
	}
	fmt.Fprintf(out, "  What to do: %s\n\n", kind.Remedy())
}

// printApart prints what is no finding: all of it is about storages, or all about load balancers.
func printApart(out io.Writer, title string, findings []*doctor.Finding) {
	if len(findings) == 0 {
		return
	}
	fmt.Fprintf(out, "%s: %d\n", title, len(findings))
	printRows(out, findings)
	fmt.Fprintln(out)
}

func printRows(out io.Writer, findings []*doctor.Finding) {
	if findings[0].StorageID == "" {
		printBalancers(out, findings)
		return
	}
	printStorages(out, findings)
}

func printStorages(out io.Writer, findings []*doctor.Finding) {
	printTable(out, "STORAGE\tTITLE\tSIZE\tZONE\tAGE\tCREDITS/MONTH\tNOTE", findings, func(f *doctor.Finding) []string {
		return []string{f.StorageID, f.Title, fmt.Sprintf("%d GiB", f.SizeGiB), f.Zone, age(f), credits(f), note(f)}
	})
}

// printBalancers prints load balancers and certificate bundles.
func printBalancers(out io.Writer, findings []*doctor.Finding) {
	printTable(out, "ID\tNAME\tAGE\tNOTE", findings, func(f *doctor.Finding) []string {
		return []string{cmp.Or(f.LoadBalancerID, f.CertificateID), f.Title, age(f), note(f)}
	})
}

func credits(f *doctor.Finding) string {
	if f.CreditsPerMonth == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f", f.CreditsPerMonth)
}

func age(f *doctor.Finding) string {
	if f.Created == nil {
		return "unknown"
	}
	return duration.HumanDuration(time.Since(*f.Created))
}

// note says what is known of a finding, how far it is, and what came of it.
func note(f *doctor.Finding) string {
	var parts []string
	if f.Note != "" {
		parts = append(parts, f.Note)
	}
	if f.Adopt != "" {
		parts = append(parts, "a Service takes it with annotation "+f.Adopt)
	}
	if f.Since != nil {
		parts = append(parts, fmt.Sprintf("%s since %s", f.Stage, f.Since.UTC().Format(time.RFC3339)))
	}
	switch {
	case f.Outcome == doctor.OutcomeFailed:
		parts = append(parts, "failed: "+f.Error)
	case f.Kept != "":
		parts = append(parts, "kept: "+f.Kept)
	case f.Due != nil:
		parts = append(parts, "goes on after "+f.Due.UTC().Format(time.RFC3339))
	case f.Outcome != "":
		parts = append(parts, f.Outcome)
	case f.Action != "":
		parts = append(parts, "next: "+string(f.Action))
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
