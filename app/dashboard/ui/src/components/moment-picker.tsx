import "@mantine/dates/styles.css";

import { DateTimePicker, type DateTimePickerProps } from "@mantine/dates";
import dayjs from "dayjs";
import { useTranslation } from "react-i18next";

import { wallTime } from "../format";
import { calendarLocale } from "./calendar-locale";

/** In a dialog, Escape in these closes the picker and not the dialog. Mantine itself marks only the calendar. */
const ownEscape = { "data-mantine-stop-propagation": true } as const;
const timeInputs = { hoursInputProps: ownEscape, minutesInputProps: ownEscape, secondsInputProps: ownEscape };

/** What a clock and a calendar somewhere show, to the second: `YYYY-MM-DD HH:mm:ss`, without a zone. */
export function WallTimePicker(props: DateTimePickerProps) {
  const { t, i18n } = useTranslation();
  return (
    <DateTimePicker withSeconds valueFormat="YYYY-MM-DD HH:mm:ss" locale={calendarLocale(i18n.language)} submitButtonProps={{ "aria-label": t("common.apply") }} timePickerProps={timeInputs} {...props} />
  );
}

interface Props extends Omit<DateTimePickerProps, "value" | "onChange"> {
  value: string | null | undefined;
  onChange: (moment: string | null) => void;
}

/** A moment, to the second, chosen on the browser's clock; in and out it is ISO 8601 with an offset. */
export function MomentPicker({ value, onChange, ...props }: Props) {
  return <WallTimePicker {...props} value={value == null ? null : wallTime(value)} onChange={(picked) => onChange(picked === null ? null : dayjs(picked).format())} />;
}
