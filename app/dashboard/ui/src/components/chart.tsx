import { useComputedColorScheme } from "@mantine/core";
import { BarController, BarElement, CategoryScale, Chart as ChartJs, LinearScale, Tooltip } from "chart.js";
import { Chart } from "react-chartjs-2";
import { useTranslation } from "react-i18next";

import type { ExecutionState, Schemas } from "../api/client";
import { stateColors } from "../theme";

ChartJs.register(BarController, BarElement, CategoryScale, LinearScale, Tooltip);

const shown: ExecutionState[] = ["success", "failed", "cancelled", "skipped"];

/** Executions that ended, stacked by state, over time. */
export default function ThroughputChart({ data }: { data: Schemas["StatisticsAnswer"] }) {
  const { t, i18n } = useTranslation();
  const scheme = useComputedColorScheme("light");
  const ink = scheme === "dark" ? "#b8bec9" : "#4b5563";
  const grid = scheme === "dark" ? "#2a2e36" : "#e6e9ef";
  const format = new Intl.DateTimeFormat(
    i18n.language,
    data.period === "week" ? { month: "numeric", day: "numeric", hour: "2-digit", hour12: false } : { hour: "2-digit", minute: "2-digit", hour12: false },
  );
  const label = `${t("overview.chart")}: ${shown.map((state) => `${t(`state.${state}`)} ${data.summary.states[state] ?? 0}`).join(", ")}`;
  return (
    <div style={{ height: 200 }}>
      <Chart
        type="bar"
        role="img"
        aria-label={label}
        data={{
          labels: data.points.map((point) => format.format(new Date(point.at))),
          datasets: shown.map((state) => ({
            label: t(`state.${state}`),
            data: data.points.map((point) => point.states[state] ?? 0),
            backgroundColor: stateColors[state],
            borderRadius: 2,
            maxBarThickness: 18,
          })),
        }}
        options={{
          animation: false,
          maintainAspectRatio: false,
          interaction: { mode: "index", intersect: false },
          plugins: { tooltip: { filter: (item) => item.raw !== 0 } },
          scales: {
            x: { stacked: true, ticks: { color: ink, maxTicksLimit: 8, maxRotation: 0 }, grid: { display: false }, border: { color: grid } },
            y: { stacked: true, beginAtZero: true, ticks: { color: ink, precision: 0, maxTicksLimit: 5 }, grid: { color: grid }, border: { display: false } },
          },
        }}
      />
    </div>
  );
}
