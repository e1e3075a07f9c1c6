import { Alert, Group, Text } from "@mantine/core";
import { IconAlertTriangle, IconCircleCheck, IconInfoCircle } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";

import type { Schemas } from "../api/client";
import { doctorQuery } from "../api/queries";
import { count } from "../format";
import { languageOf } from "../i18n";
import { stateColors } from "../theme";
import { Loaded } from "./feedback";
import { Section } from "./page";

const NAMED = 5;
const looks = { error: ["red", IconAlertTriangle], warning: ["orange", IconAlertTriangle], info: ["blue", IconInfoCircle] } as const;

/** What the coming thirty days of all schedules will hurt, and what to do about it. */
export function ScheduleDoctor() {
  const { t, i18n } = useTranslation();
  const found = useQuery(doctorQuery(languageOf(i18n.language)));
  return (
    <Section title={t("doctor.title")}>
      <Loaded query={found}>
        {(data) => (
          <>
            <Text size="sm" c="dimmed">{t("doctor.text", { tasks: count(data.task_count, i18n.language), fires: count(data.fire_count, i18n.language) })}</Text>
            {data.findings.length === 0 ? (
              <Group gap="xs"><IconCircleCheck size={18} color={stateColors.success} aria-hidden /><Text size="sm">{t("doctor.allWell")}</Text></Group>
            ) : null}
            {data.findings.map((finding, index) => <Found key={`${finding.kind}${index}`} finding={finding} />)}
            {data.notes.map((note) => <Text key={note} size="xs" c="dimmed">{note}</Text>)}
          </>
        )}
      </Loaded>
    </Section>
  );
}

function Found({ finding }: { finding: Schemas["ScheduleFinding"] }) {
  const { t } = useTranslation();
  const [color, Icon] = looks[finding.severity];
  return (
    <Alert color={color} variant="outline" p="sm" icon={<Icon aria-hidden />} aria-label={t(`severity.${finding.severity}`)} title={finding.sentence}>
      <Text size="sm" c="var(--mantine-color-text)" className="wrap">{finding.remedy}</Text>
      <Group gap="sm" mt={4}>
        {finding.tasks.slice(0, NAMED).map((task) => <Link key={task.id} className="link" style={{ fontSize: "0.875rem" }} to="/tasks/$id" params={{ id: task.id }}>{task.name}</Link>)}
        {finding.task_count > NAMED ? <Text size="sm" c="dimmed">+{finding.task_count - NAMED}</Text> : null}
      </Group>
    </Alert>
  );
}
